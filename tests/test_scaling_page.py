"""docs/scaling.md: its figures are the computed ones."""

import pytest
from repository import REPOSITORY

from tests.benchmarks import sizing

PAGE = REPOSITORY / "docs" / "scaling.md"


def test_the_page_holds_the_computed_table():
    assert sizing.table() in PAGE.read_text(), (
        "run `python -m tests.benchmarks.sizing` and paste its output"
    )


def test_a_column_by_hand():
    measured = sizing.Measured(size_px=100, shard_bytes_per_pair=150_000, cpu_ms_per_pair=36.0)
    assert sizing.rows(measured, 1_000_000) == {
        "requests": "3,000,000",
        # 3,000,000 requests x 2 s / 40 at a time = 150,000 s; 225,000 s at 3 s.
        "fetch, hours": "41.7-62.5",
        "fetch at 100 requests/s, hours": "8.33",
        # 10,000 pixels x (8 + 26) bytes x 1,000,000.
        "fetched": "340 GB",
        "spool": "280 GB",
        "shards": "150 GB",
        "build, core hours": "10.00",
        "cores to build in an hour": "10",
    }


def test_a_patch_beyond_a_request_is_refused():
    # 1,400 x 1,400 x 26 bytes is 51 MB.
    with pytest.raises(ValueError, match="does not fit one request"):
        sizing.rows(sizing.Measured(size_px=1400, shard_bytes_per_pair=1, cpu_ms_per_pair=1.0), 1)
