"""The block bootstrap against a plain loop, and its edges."""

import numpy as np
import pytest

from models.intervals import bootstrap

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
    found = bootstrap(with_count(values), mean, groups=BLOCK, confidence=0.9)
    by_block = values.reshape(NUM_BLOCKS, PER_BLOCK)
    draws = np.random.default_rng(7).integers(NUM_BLOCKS, size=(5000, NUM_BLOCKS))
    means = [by_block[draw].mean() for draw in draws]
    assert found.value == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(np.percentile(means, [5, 95]), abs=0.04)


def test_drawing_single_patches_of_alike_neighbours_is_too_sure():
    parts = with_count(make_values())
    by_block, by_patch = bootstrap(parts, mean, groups=BLOCK), bootstrap(parts, mean)
    assert by_block.value == by_patch.value
    assert by_block.high - by_block.low > 2 * (by_patch.high - by_patch.low)


def test_equal_seeds_give_equal_intervals():
    parts = with_count(make_values())
    assert bootstrap(parts, mean, seed=3) == bootstrap(parts, mean, seed=3)
    assert bootstrap(parts, mean, seed=3) != bootstrap(parts, mean, seed=4)


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
