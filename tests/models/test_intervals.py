"""The block bootstrap against a plain loop, and its edges."""

import numpy as np
import pytest

from models.intervals import Resampling, bootstrap, over_seeds
from tests.benchmarks.judging import interval_coverage

NUM_BLOCKS, PER_BLOCK = 15, 8
BLOCK = np.repeat(np.arange(NUM_BLOCKS), PER_BLOCK).astype(str)


def mean(sums):
    """Sums of (value, 1) [R, 2] -> means [R]; NaN without any patch."""
    total, count = sums[:, 0], sums[:, 1]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def with_count(values):
    return np.stack([values, np.ones(len(values))], axis=1)


def make_values(seed=0):
    """Neighbours are alike: each block has an offset of its own."""
    rng = np.random.default_rng(seed)
    return np.repeat(rng.normal(size=NUM_BLOCKS), PER_BLOCK) + 0.1 * rng.normal(size=len(BLOCK))


def test_interval_equals_a_plain_loop_over_drawn_blocks():
    values = make_values()
    found = bootstrap(with_count(values), mean, groups=BLOCK, how=Resampling(confidence=0.9))
    by_block = values.reshape(NUM_BLOCKS, PER_BLOCK)
    draws = np.random.default_rng(7).integers(NUM_BLOCKS, size=(5000, NUM_BLOCKS))
    means = [by_block[draw].mean() for draw in draws]
    assert found.value == pytest.approx(values.mean())
    # Percentiles that make up for the few blocks: t(0.95; 14) * sqrt(15 / 14) = 1.823,
    # and 3.41 % of the normal distribution lie below -1.823.
    assert [found.low, found.high] == pytest.approx(np.percentile(means, [3.41, 96.59]), abs=0.04)


def test_interval_of_few_blocks_is_students():
    values = make_values().reshape(NUM_BLOCKS, PER_BLOCK)[:6]
    found = bootstrap(with_count(values.ravel()), mean, groups=BLOCK[: 6 * PER_BLOCK])
    by_block = values.mean(axis=1)
    # 2.5706: the 97.5 % point of Student's t with 5 degrees of freedom, from a table.
    reach = 2.5706 * by_block.std(ddof=1) / 6**0.5
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.high - found.value == pytest.approx(reach, rel=0.08)


@pytest.mark.parametrize("num_units", [5, 8, 12])
def test_intervals_cover_the_truth_as_often_as_they_say(num_units):
    rng, num_trials = np.random.default_rng(num_units), 400
    found = [
        bootstrap(interval_coverage.draw_units(rng, num_units), interval_coverage.iou)
        for _ in range(num_trials)
    ]
    covered = interval_coverage.coverage(found, interval_coverage.true_iou())
    # Percentiles alone cover 0.81, 0.86 and 0.90. Units as uneven as these cost three
    # points, and a standard error is 0.011.
    error = interval_coverage.standard_error(0.95, num_trials)
    assert 0.95 - 0.03 - 3 * error < covered < 0.95 + 3 * error


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say(num_seeds):
    num_trials = 4000
    drawn = np.random.default_rng(num_seeds).normal(0.3, 0.02, (num_trials, num_seeds))
    covered = interval_coverage.coverage(map(over_seeds, drawn), 0.3)
    assert abs(covered - 0.95) < 3 * interval_coverage.standard_error(0.95, num_trials)


def test_one_seed_has_no_interval():
    found = over_seeds(np.array([0.4]))
    assert found.value == 0.4
    assert np.isnan([found.low, found.high]).all()


def test_drawing_single_patches_of_alike_neighbours_is_too_sure():
    parts = with_count(make_values())
    by_block, by_patch = bootstrap(parts, mean, groups=BLOCK), bootstrap(parts, mean)
    assert by_block.value == by_patch.value
    assert by_block.high - by_block.low > 2 * (by_patch.high - by_patch.low)


def test_equal_seeds_give_equal_intervals():
    parts = with_count(make_values())
    assert bootstrap(parts, mean, how=Resampling(seed=3)) == bootstrap(
        parts, mean, how=Resampling(seed=3)
    )
    assert bootstrap(parts, mean, how=Resampling(seed=3)) != bootstrap(
        parts, mean, how=Resampling(seed=4)
    )


def test_resamples_without_a_value_are_left_out():
    # Only one block of three has patches of the measured class, so a third of the
    # resamples has none.
    parts = np.array([[2.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    found = bootstrap(parts, mean, groups=np.array(["a", "b", "c"]))
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    none = bootstrap(np.zeros((3, 2)), mean)
    assert np.isnan([none.value, none.low, none.high]).all()


def test_no_patch_is_refused():
    with pytest.raises(ValueError, match="a bootstrap needs at least one patch, got none"):
        bootstrap(np.zeros((0, 2)), mean)
