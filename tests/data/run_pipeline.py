"""`python -m pipeline` as a user calls it: a process of its own, in the repository."""

from __future__ import annotations

import os
import subprocess
import sys

from repository import REPOSITORY


def run_pipeline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The ended process with what it printed; `environment` comes on top of this one's."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
