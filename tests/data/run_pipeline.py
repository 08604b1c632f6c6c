"""Run `python -m pipeline` as a user does: in a new process, in the repository."""

from __future__ import annotations

import os
import subprocess
import sys

from repository import REPOSITORY


def run_pipeline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command, and return the ended process with what it printed.

    The variables in `environment` are added to those of this process.
    """
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
