"""The verdict, against plain loops and on arms whose difference is known."""

import numpy as np
import pytest

from models import metrics
from models.intervals import Resampling
from pipeline.claim_check import comparison
from pipeline.claim_check.measures import MEASURES
from tests.benchmarks.judging import interval_coverage


def counts_of(rng, accuracy, num_seeds=4, num_patches=60, num_classes=3, num_pixels=50):
    """Counts of models that are right with `accuracy` (one value or [S]), else random."""
    counts = np.zeros((num_seeds, num_patches, num_classes, num_classes), np.int64)
    truth = np.random.default_rng(1).integers(num_classes, size=(num_patches, num_pixels))
    for seed, patch in np.ndindex(num_seeds, num_patches):
        right = rng.random(num_pixels) < np.broadcast_to(accuracy, num_seeds)[seed]
        said = np.where(right, truth[patch], rng.integers(num_classes, size=num_pixels))
        counts[seed, patch] = metrics.confusion_matrix(truth[patch], said, num_classes)
    return counts


BLOCK = np.repeat(np.arange(20), 3)
ASKED = {"num_resamples": 400}


def compare(ours, theirs, groups, **asked):
    """The difference of two arms' counts [S, M, K, K] by mean IoU."""
    flat = [arm.reshape(*arm.shape[:2], -1) for arm in (ours, theirs)]
    statistic = MEASURES["mean_iou"].statistic(ours, 2)
    return comparison.compare(*flat, statistic, groups, Resampling(**asked))


def test_value_is_the_mean_over_seeds_of_pooled_mean_iou():
    rng = np.random.default_rng(0)
    ours, theirs = counts_of(rng, 0.7), counts_of(rng, 0.5)
    found = compare(ours, theirs, BLOCK, **ASKED)
    means = [np.mean([metrics.mean_iou(cm.sum(axis=0)) for cm in arm]) for arm in (ours, theirs)]
    assert (found.ours, found.theirs) == (pytest.approx(means[0]), pytest.approx(means[1]))
    assert found.value == pytest.approx(means[0] - means[1])
    assert found.low < found.value < found.high
    assert found.verdict == "supported"
    assert compare(theirs, ours, BLOCK, **ASKED).verdict == "not supported"


def test_an_arm_is_neither_better_nor_worse_than_its_equal():
    rng = np.random.default_rng(0)
    assert (
        compare(counts_of(rng, 0.6), counts_of(rng, 0.6), BLOCK, **ASKED).verdict == "inconclusive"
    )
    same = counts_of(rng, 0.6)
    found = compare(same, same, BLOCK, **ASKED)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(0)
    theirs = counts_of(rng, 0.6)
    agreeing = compare(counts_of(rng, 0.7), theirs, BLOCK, **ASKED)
    disagreeing = compare(
        counts_of(rng, np.array([0.95, 0.45, 0.95, 0.45])), theirs, BLOCK, **ASKED
    )
    assert agreeing.verdict == "supported"
    assert disagreeing.value == pytest.approx(agreeing.value, abs=0.06)
    assert disagreeing.high - disagreeing.low > 3 * (agreeing.high - agreeing.low)
    assert disagreeing.verdict == "inconclusive"


def test_alike_neighbours_count_as_one():
    rng = np.random.default_rng(0)
    # One seed, because the spread of seeds would hide the effect of blocks.
    ours, theirs = (
        counts_of(rng, accuracy, num_seeds=1, num_patches=12) for accuracy in (0.62, 0.6)
    )
    alone = compare(ours, theirs, np.arange(12), **ASKED)
    # Each patch ten times in one block: this adds no information.
    repeated = [np.repeat(arm, 10, axis=1) for arm in (ours, theirs)]
    in_blocks = compare(*repeated, np.repeat(np.arange(12), 10), **ASKED)
    as_patches = compare(*repeated, np.arange(120), **ASKED)
    assert (in_blocks.low, in_blocks.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert as_patches.high - as_patches.low < 0.6 * (in_blocks.high - in_blocks.low)


def test_the_interval_is_what_a_loop_over_resamples_gives():
    rng = np.random.default_rng(0)
    ours, theirs = counts_of(rng, 0.7), counts_of(rng, 0.5)
    draws = np.random.default_rng(5)
    blocks = draws.multinomial(20, np.full(20, 1 / 20), 3)
    seeds = draws.multinomial(4, np.full(4, 1 / 4), 3)
    expected = np.zeros(3)
    for draw in range(3):
        for seed, times in enumerate(seeds[draw]):
            pooled = [
                sum(blocks[draw][block] * arm[seed, patch] for patch, block in enumerate(BLOCK))
                for arm in (ours, theirs)
            ]
            expected[draw] += (
                times / 4 * (metrics.mean_iou(pooled[0]) - metrics.mean_iou(pooled[1]))
            )
    found = compare(ours, theirs, BLOCK, num_resamples=3, seed=5)
    # Percentiles that make up for 20 blocks: t(0.975; 19) * sqrt(20 / 19) = 2.147, and
    # 1.59 % of the normal distribution lie below -2.147.
    assert (found.low, found.high) == pytest.approx(
        tuple(np.quantile(expected, [0.0159, 0.9841])), abs=1e-4
    )


def test_a_class_that_is_only_predicted_does_not_change_what_is_averaged_over():
    counts = np.zeros((1, 2, 3, 3), np.int64)
    counts[0, :, 0, 0] = counts[0, :, 1, 1] = 5
    other = counts.copy()
    other[0, 0, 0] = (4, 0, 1)
    found = compare(counts, other, np.arange(2), **ASKED)
    assert found.ours == 1.0
    assert found.theirs == pytest.approx((9 / 10 + 1) / 2)


def test_arms_of_other_patches_are_refused():
    counts = np.zeros((2, 3, 2, 2), np.int64)
    with pytest.raises(ValueError, match=r"values \[S, M, P\] of the same patches"):
        compare(counts, counts[:, :2], np.arange(3), **ASKED)


def test_interval_by_seeds_alone_is_students():
    rng = np.random.default_rng(0)
    ours, theirs = (
        counts_of(rng, np.array([0.6, 0.7, 0.8]), num_seeds=3),
        counts_of(rng, 0.5, num_seeds=3),
    )
    found = compare(ours, theirs, BLOCK, **ASKED)
    by_seed = [
        metrics.mean_iou(a.sum(axis=0)) - metrics.mean_iou(b.sum(axis=0))
        for a, b in zip(ours, theirs, strict=True)
    ]
    # 4.3027: the 97.5 % point of Student's t with 2 degrees of freedom, from a table.
    reach = 4.3027 * np.std(by_seed, ddof=1) / np.sqrt(3)
    assert found.over_seeds == pytest.approx((found.value - reach, found.value + reach), abs=1e-4)


def test_one_seed_decides_nothing_however_large_the_difference():
    rng = np.random.default_rng(0)
    ours, theirs = (counts_of(rng, accuracy, num_seeds=1) for accuracy in (0.9, 0.5))
    found = compare(ours, theirs, BLOCK, **ASKED)
    assert found.low > 0.2
    assert np.isnan(found.over_seeds).all()
    assert found.verdict == compare(theirs, ours, BLOCK, **ASKED).verdict == "inconclusive"


def test_a_verdict_needs_both_intervals_and_tells_both():
    said = {"value": 0.049, "low": 0.005, "high": 0.09, "ours": 0.166, "theirs": 0.117}
    found = comparison.Difference(**said, over_seeds=(-0.001, 0.1))
    assert not found.is_certain
    assert found.in_points == "+4.9 [+0.5, +9.0] (over seeds [-0.1, +10.0])"
    assert comparison.Difference(**said, over_seeds=(0.001, 0.1)).is_certain


def test_a_loss_needs_both_intervals_too():
    said = {"value": -0.049, "low": -0.09, "high": -0.005, "ours": 0.117, "theirs": 0.166}
    assert comparison.Difference(**said, over_seeds=(-0.1, 0.001)).verdict == "inconclusive"
    assert comparison.Difference(**said, over_seeds=(-0.1, -0.001)).verdict == "not supported"


@pytest.mark.parametrize(("num_seeds", "covered", "above"), [(3, 0.80, 0.109), (5, 0.90, 0.052)])
def test_supported_is_as_rare_as_it_says_when_nothing_is_there(num_seeds, covered, above):
    num_trials = 600
    found = interval_coverage.differences(num_seeds, 20, num_trials)

    def check(rate, stated, error_of_stated=0.0):
        error = interval_coverage.standard_error(stated, num_trials)
        assert abs(rate - stated) < 3 * np.hypot(error, error_of_stated)

    # Nominal, so without an error: a fortieth on each side.
    for verdict in ("supported", "not supported"):
        check(np.mean([one.verdict == verdict for one in found]), 0.025)
    # The bootstrap alone is too narrow with few seeds, by as much as the docstrings of
    # `paired_difference` and `verdict` say. Those rates are of 1,500 trials.
    for rate, stated in (
        (np.mean([one.low <= 0.0 <= one.high for one in found]), covered),
        (np.mean([one.low > 0.0 for one in found]), above),
    ):
        check(rate, stated, interval_coverage.standard_error(stated, 1500))
