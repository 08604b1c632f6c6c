"""Run `python -m pipeline` in the repository: in a new process, or in this one."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

from beam_jobs.__main__ import run
from tests.data.runs.repository import REPOSITORY


def run_pipeline(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does: in a new process. Return that with what it printed.

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


def run_pipeline_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, and return the same as `run_pipeline`.

    A new process needs 10 s to import TensorFlow and TFX. This one needs them once.
    """
    with (
        contextlib.chdir(REPOSITORY),
        mock.patch.dict(os.environ),
        _same_log_afterwards(),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        code = run(list(arguments))
    return subprocess.CompletedProcess(list(arguments), code, stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def _same_log_afterwards() -> Iterator[None]:
    """Undo what the command changes in the root logger, which pytest's caplog uses too."""
    root = logging.getLogger()
    handlers = {handler: handler.level for handler in root.handlers}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for handler, level in handlers.items():
            handler.setLevel(level)
