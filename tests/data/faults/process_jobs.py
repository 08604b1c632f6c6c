"""Jobs for worker processes, which import them by name."""

from __future__ import annotations

import os
import time
from pathlib import Path


def note_process(job: str) -> None:
    """Write the process id to the file `job`; fail if its name is "bad"."""
    path = Path(job)
    if path.name == "bad":
        raise ValueError("bad job")
    path.write_text(str(os.getpid()))


def note_process_slowly(job: str) -> None:
    """Write the process id to the file `job` in a tenth of a second."""
    note_process(job)
    time.sleep(0.1)


def note_process_and_sleep(job: str) -> None:
    """Write the process id to the file `job`, then sleep for ten minutes."""
    note_process(job)
    time.sleep(600)
