"""Memory: what a worker has freed goes back to the system."""

from __future__ import annotations

import ctypes
import math
from contextlib import suppress

import numpy as np

from beam_jobs.contracts.records import FloatArray

ALIGNED_BYTES = 64
"""TensorFlow shares an array only if its address is a multiple of so many bytes.

Source: EIGEN_MAX_ALIGN_BYTES in Eigen, for AVX-512.
"""
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


def empty_aligned(shape: tuple[int, ...]) -> FloatArray:
    """Return an array float32 with any values, which TensorFlow can share."""
    num_bytes = math.prod(shape) * np.dtype(np.float32).itemsize
    room = np.empty(num_bytes + ALIGNED_BYTES, np.uint8)
    start = -room.ctypes.data % ALIGNED_BYTES
    return room[start : start + num_bytes].view(np.float32).reshape(shape)


def give_back() -> None:
    """Give memory that this process has freed back to the system, on Linux.

    The C library keeps most of it, in pieces between the arrays of several threads: 0.2
    GB in a worker after some rows of windows.

    Source: malloc_trim(3).
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
