"""Jobs for processes that import them by name."""

from __future__ import annotations

import os
import time
from pathlib import Path


def note_process(job: str) -> None:
    """Leaves a file that names the process; a job named "bad" fails."""
    path = Path(job)
    if path.name == "bad":
        raise ValueError("bad job")
    path.write_text(str(os.getpid()))


def note_process_and_sleep(job: str) -> None:
    """The same, and goes on for long."""
    note_process(job)
    time.sleep(600)
