"""Memory that a stretch of work takes on top of what its process holds already. Linux only, as the kernel keeps the peak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def start() -> Callable[[], float]:
    """Begins a stretch; what is returned tells its peak in MiB above the start.

    The process's peak so far is forgotten first: imports reach a higher one than what
    they leave behind, and would hide all that is smaller. Source: proc(5), clear_refs.
    """
    _CLEAR.write_text("5")
    before = _mib("VmRSS")
    return lambda: _mib("VmHWM") - before


def _mib(name: str) -> float:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1]) / 1024
