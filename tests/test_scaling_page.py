"""docs/scaling.md: its figures are the computed ones."""

import pytest

from tests.benchmarks.data import sizing
from tests.benchmarks.training import training_sizing
from tests.benchmarks.training.training_sizing import Encoders, Machine, Training
from tests.data.runs.repository import REPOSITORY

PAGE = REPOSITORY / "docs" / "scaling.md"


def test_the_page_holds_the_computed_table():
    assert sizing.table() in PAGE.read_text(), (
        "run `python -m tests.benchmarks.data.sizing` and paste its output"
    )


@pytest.mark.parametrize("size_px", [64, 128])
def test_the_page_holds_the_computed_tables_of_trainings(size_px):
    assert training_sizing.table(size_px) in PAGE.read_text(), (
        "run `python -m tests.benchmarks.training.training_sizing` and paste its output"
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


def training(num_gpus):
    """1 M pairs of 64 px with round numbers: 10 million weights, 3 ms of a GPU for 256 pairs."""
    return Training(
        size_px=64,
        num_pairs=1_000_000,
        num_gpus=num_gpus,
        encoders=Encoders(num_weights=10_000_000, num_statistics=1_000, forward_flops={64: 1e9}),
        machine=Machine(
            num_gpus=8,
            num_cores=163,
            gpu_flops=256e12,
            small_shares=(0.5, 1.0),
            link_bytes=100e9,
            network_bytes=10e9,
            usd_per_hour=(10.0, 20.0),
        ),
    )


def test_a_training_by_hand():
    found = training_sizing.rows(training(16))
    # 15/16 of 4,096 pairs x 128 dimensions x 2 sensors x 4 bytes = 3.93 MB; a ring of sums
    # goes round twice: 7.86 MB, 15/8 x 40 MB of weights, and 2 x 15/8 x 4 kB of statistics.
    sent = {name: text for name, text in found.items() if name.endswith(", MB")}
    assert list(sent.values()) == ["3.9", "7.9", "75.0", "0.0"]
    # 86.8 MB at 10 GB/s.
    assert found["all of these at the links' rate, ms"] == "8.7"
    # 3 ms at the full rate, 6 at half of it.
    assert found["compute of a step, ms"] == "3.0-6.0"
    # 100 M pairs at 256 in 3 ms, in GPU hours.
    assert found["compute, GPU hours"] == "0.3-0.7"
    assert found["global batch, pairs"] == "4,096"
    # 244 steps an epoch; the 576 pairs that are left fill no batch.
    assert found["steps of 100 epochs"] == "24,400"
    # 4,096 pairs in 6 + 8.6811 and 3 + 8.6811 ms.
    assert found["pairs/s if no input is waited for"] == "278,997-350,650"


def test_input_limits_the_hours_and_a_shared_one_less():
    one = training(16)
    # 163 cores of 1.63 ms a pair.
    assert one.input_rate("none", is_shared=False) == pytest.approx(100_000)
    assert one.input_rate("none", is_shared=True) == pytest.approx(200_000)
    found = training_sizing.rows(one)
    assert found["hours, each machine all"] == "0.28"
    assert found["hours, shared"] == "0.14"
    # With the cache, two machines read 379,070 pairs a second: the GPUs are the limit.
    assert found["hours, shared, `cache: disk`"] == "0.08-0.10"
    assert one.hours("disk", is_shared=True) == pytest.approx(
        [1e8 / 350_650 / 3600, 1e8 / 278_997 / 3600], rel=1e-4
    )
    # Two machines at 10 and 20 dollars.
    assert found["training, last line of hours, USD"] == "2-4"


def test_one_machine_exchanges_over_its_own_links():
    assert training(8).exchange_seconds() == pytest.approx(
        sum(training(8).step_bytes().values()) / 100e9
    )
