"""Memory: what a worker has freed goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 2 << 20


def keep_apart() -> None:
    """Let this process get large arrays from the system, and give them back, on Linux.

    By itself, the C library takes arrays of up to 32 MB from pools. Gaps between arrays
    of many sizes grow there while a scene is mapped: to 0.2 GB in a worker.

    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Give memory that this process has freed back to the system, on Linux.

    The C library keeps most of it, in pieces between the arrays of several threads: 0.2
    GB in a worker after some rows of windows.

    Source: malloc_trim(3).
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
