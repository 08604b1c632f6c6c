import sys
from pathlib import Path

import pytest

from beam_jobs.predict import memory


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is of Linux' C library")
def test_memory_between_pieces_in_use_goes_back_to_the_system():
    pieces = [bytearray(40_000) for _ in range(4000)]
    full = resident_bytes()
    # Every tenth piece stays, so that nothing at the end of the heap is free.
    kept = pieces[::10]
    del pieces
    memory.give_back()
    assert len(kept) == 400
    assert full - resident_bytes() > 100_000_000
