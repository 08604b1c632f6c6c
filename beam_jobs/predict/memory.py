"""Memory: what a worker has freed goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Give memory that this process has freed back to the system, on Linux.

    The C library keeps most of it, in pieces between the arrays of several threads: 0.2
    GB in a worker after some rows of windows.

    Source: malloc_trim(3).
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
