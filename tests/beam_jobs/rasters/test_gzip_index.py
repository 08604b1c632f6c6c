"""Random access to gzip: any range equals the content, whatever lies before it."""

import gzip

import numpy as np
import pytest

from beam_jobs.rasters import gzip_index
from beam_jobs.rasters.gzip_index import GzipIndex


@pytest.fixture(scope="module")
def content() -> bytes:
    rng = np.random.default_rng(0)
    # Some of it compresses well, some not at all: blocks of the file hold very
    # different amounts.
    return b"".join(
        rng.integers(0, high, 1 << 20, np.uint8).tobytes()
        for high in (2, 255, 1, 30, 255, 4, 255, 9, 255, 2)
    )


@pytest.mark.parametrize("streams", [1, 3])
def test_any_range_is_that_of_the_content(tmp_path, content, streams):
    path = tmp_path / "a.gz"
    share = len(content) // streams + 1
    path.write_bytes(
        b"".join(gzip.compress(content[i * share : (i + 1) * share], 1) for i in range(streams))
    )
    index = GzipIndex(str(path))
    assert len(index._points) > 2
    for offset, length in (
        (0, 10),
        (len(content) - 7, 7),
        (3 << 20, 1 << 20),
        (5_000_000, 1),
        (min(share, len(content) - 9) - 5, 10),
        (123_456, 0),
    ):
        assert index.read(offset, length) == content[offset : offset + length]
    with pytest.raises(EOFError, match=f"ends before byte {len(content) + 1}"):
        index.read(len(content), 1)


def test_the_states_are_some_megabytes_apart(tmp_path, content):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content, 1))
    positions = [point.position for point in GzipIndex(str(path))._points]
    assert positions[0] == 0
    assert min(np.diff(positions)) >= gzip_index._POINT_BYTES
