"""How much memory this process may still take: the machine's free memory, or what a container's limit leaves of it.

Linux's /proc and /sys -> bytes. Called by `record_source.py` before it fills a cache.
"""

from __future__ import annotations

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def count_bytes() -> int:
    """Free memory in bytes; where the system does not tell, all of the machine's.

    Source: man 5 proc_meminfo, MemAvailable; Linux,
    Documentation/admin-guide/cgroup-v2.rst, memory.max, memory.current and memory.stat.
    """
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _MEMINFO.exists():
        free = 1024 * _entries(_MEMINFO)["MemAvailable"]
    limit = _CGROUP / "memory.max"
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        # Pages that were read from files count as used, but give way.
        reclaimable = _entries(_CGROUP / "memory.stat")["inactive_file"]
        free = min(free, int(text) - int((_CGROUP / "memory.current").read_text()) + reclaimable)
    return max(0, free)


def _entries(path: Path) -> dict[str, int]:
    """The numbers of a file of lines `name: number` or `name number`."""
    fields = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    return {field[0]: int(field[1]) for field in fields}
