"""Measure the memory that a piece of work adds to its process.

It runs on Linux only, because it reads the peak that the kernel keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start() -> Callable[[], float]:
    """Start to measure; return a function that gives the peak in MiB above the start.

    Reset the kernel's peak of this process first. Imports use more memory than they
    keep, and their peak would hide any smaller one. Source: proc(5), clear_refs.
    """
    _CLEAR.write_text("5")
    before = _mib("VmRSS")
    return lambda: _mib("VmHWM") - before


def of_process() -> float:
    """Return the peak of this process in MiB.

    `getrusage` would give that of the process that started this one, if it was larger.
    """
    return _mib("VmHWM")


def _mib(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1]) / 1024
