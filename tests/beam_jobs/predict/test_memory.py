import sys
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.predict import memory


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux' C library")


@ON_LINUX
def test_memory_between_pieces_in_use_goes_back_to_the_system():
    pieces = [bytearray(40_000) for _ in range(4000)]
    full = resident_bytes()
    # Every tenth piece stays, so that nothing at the end of the heap is free.
    kept = pieces[::10]
    del pieces
    memory.give_back()
    assert len(kept) == 400
    assert full - resident_bytes() > 100_000_000


@ON_LINUX
def test_large_arrays_between_pieces_in_use_go_back_at_once():
    # Once an array of 32 MB is freed, the C library pools all that are smaller.
    large = np.ones(31 << 20, np.uint8)
    del large
    memory.keep_apart()
    arrays, kept = [], []
    for _ in range(40):
        arrays.append(np.ones(4 << 20, np.uint8))
        kept.append(bytearray(40_000))
    full = resident_bytes()
    arrays.clear()
    assert len(kept) == 40
    assert full - resident_bytes() > 100_000_000
