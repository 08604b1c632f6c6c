"""The distance of embeddings: closed form, chance, and what an encoder sees of a shuffle."""

import dataclasses

import numpy as np
import pytest

from models.drift import embedding_drift
from models.drift.config import DriftConfig
from models.drift.embedding_drift import (
    EmbeddingSample,
    compare_embeddings,
    energy_coefficient,
    sample_of,
)
from models.health.embedded_split import EmbeddedSplit


def sample(seed, *, shift=0.0, num_blocks=30, dim=16, sensors=("s1", "s2"), prefix=""):
    """Unit vectors of patches whose blocks differ, as those of an encoder do."""
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(num_blocks), 4)
    found = {}
    for sensor in sensors:
        rows = rng.normal(size=(num_blocks, dim))[block] + rng.normal(size=(len(block), dim))
        rows[:, 0] += 1.0 + (shift if sensor == "s1" else 0.0)
        found[sensor] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return EmbeddingSample(embeddings=found, block=np.array([f"{prefix}{b}" for b in block]))


def test_the_coefficient_of_points_has_a_closed_form():
    # Two groups of one point each: nothing within, all between.
    distances = np.array([[0.0, 2.0], [2.0, 0.0]])
    assert energy_coefficient(distances, np.array([True, False])) == 1.0
    points = np.array([0.0, 1.0, 0.0, 1.0, 3.0])
    distances = np.abs(points[:, None] - points)
    same = energy_coefficient(distances[:4, :4], np.array([True, True, False, False]))
    assert same == pytest.approx(0.0)
    # Groups {0, 1} and {3}: between 2.5, within 0.5 and 0.
    rows = [0, 1, 4]
    found = energy_coefficient(distances[np.ix_(rows, rows)], np.array([True, True, False]))
    assert found == pytest.approx((2 * 2.5 - 0.5) / (2 * 2.5))


def test_the_sensor_that_moved_is_refused_and_the_other_passes():
    found = compare_embeddings(sample(0), sample(1, shift=6.0, prefix="n"), DriftConfig())
    assert [(one.about, one.is_exceeded) for one in found] == [("s1", True), ("s2", False)]
    assert "s1: the embeddings of 120 new and 120 kept patches have the energy distance 0." in (
        found[0].reason
    )
    assert (
        compare_embeddings(sample(0), sample(1), DriftConfig(severity={"embeddings": "off"})) == []
    )


def test_equal_distributions_pass_also_where_the_limit_is_zero():
    # The limit is then what groups of whole blocks reach by chance.
    config = DriftConfig(limits={"embeddings": 0.0})
    alarms = 0
    for seed in range(30):
        new = sample(1000 + seed, prefix="n", num_blocks=12)
        found = compare_embeddings(sample(seed, num_blocks=12), new, config)
        alarms += any(one.is_exceeded for one in found)
    # Two sensors at 1 % each.
    assert alarms <= 3
    # As many single patches would seem to differ.
    alone = dataclasses.replace(sample(0), block=np.arange(120).astype(str))
    new = dataclasses.replace(sample(50), block=np.arange(120, 240).astype(str))
    assert any(one.is_exceeded for one in compare_embeddings(alone, new, config))


def test_few_blocks_cannot_tell_a_difference():
    few = sample(0, num_blocks=2)
    found = compare_embeddings(few, sample(1, shift=6.0, num_blocks=2, prefix="n"), DriftConfig())
    assert not any(one.is_exceeded for one in found)


def test_a_kept_sample_is_spread_over_the_split_and_survives_its_file():
    count = 10
    rows = {sensor: np.eye(count, dtype=np.float32) for sensor in ("s1", "s2")}
    split = EmbeddedSplit(
        features=rows,
        embeddings=rows,
        lon=np.zeros(count, np.float32),
        lat=np.zeros(count, np.float32),
        block=np.array([f"b{i}" for i in range(count)]),
        orbit_state=np.array(["ascending"] * count),
        valid_fraction={sensor: np.ones(count, np.float32) for sensor in rows},
        band_means=rows,
        label=None,
    )
    kept = sample_of(split, ("s2",), 4)
    assert list(kept.block) == ["b0", "b3", "b6", "b9"]
    assert list(kept.embeddings) == ["s2"]
    read = embedding_drift.from_bytes(kept.to_bytes())
    assert list(read.block) == list(kept.block)
    np.testing.assert_array_equal(read.embeddings["s2"], np.eye(count)[[0, 3, 6, 9]])
    assert read.embeddings["s2"].dtype == np.float16
    assert len(sample_of(split, ("s1",), 99)) == count


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no file of ours"])
def test_a_damaged_sample_is_a_value_error(content):
    with pytest.raises(ValueError, match=r"."):
        embedding_drift.from_bytes(content)
