"""How much memory this process may still take.

Input: Linux's /proc and /sys. Output: bytes, of the machine or within the limit of a
container.
"""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def count_bytes() -> int:
    """Return the free memory in bytes; all of the machine's where that is unknown.

    Source: man 5 proc_meminfo, MemAvailable; Linux,
    Documentation/admin-guide/cgroup-v2.rst, memory.max, memory.current and memory.stat.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _MEMINFO.exists():
        free = 1024 * _entries(_MEMINFO)["MemAvailable"]
    limit = _CGROUP / "memory.max"
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        # Cached pages of files count as used, but the kernel frees them on demand.
        reclaimable = _entries(_CGROUP / "memory.stat")["inactive_file"]
        free = min(free, int(text) - int((_CGROUP / "memory.current").read_text()) + reclaimable)
    return max(0, free)


def _entries(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines `name: number` or `name number`."""
    fields = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    return {field[0]: int(field[1]) for field in fields}
