"""Checks on arrays whose outcome is known."""

import dataclasses

import numpy as np
import pytest

from models.encoder_probe import checks
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import Classified
from models.encoder_probe.report import ProbeReport, from_json
from models.health.retrieval import Ranks

CONFIG = ProbeConfig(num_candidates=8, min_recall_over_chance=2.0)
NUM_BLOCKS, PER_BLOCK = 12, 10
BLOCK = np.repeat(np.arange(NUM_BLOCKS), PER_BLOCK).astype(str)


def ranks_of(found):
    """Partners are the nearest where `found`, else the farthest.

    Recall among few candidates then equals recall among all.
    """
    found = np.asarray(found)
    return Ranks(
        num_better=np.where(found, 0, len(found) - 1), num_equal=np.zeros(len(found), np.int64)
    )


def classified(truth, predicted):
    return Classified(truth=np.asarray(truth), predicted={"s1": np.asarray(predicted)}, block=BLOCK)


def compare_recall(new, last, block):
    return checks.compare_recall(new, last, direction="s1_to_s2", block=block, config=CONFIG)


def some(rng, share):
    return rng.random(len(BLOCK)) < share


def test_recall_at_chance_is_refused_with_value_and_bound():
    # All keys alike: the partner wins by lot, one in eight.
    tied = Ranks(num_better=np.zeros(40, np.int64), num_equal=np.full(40, 39))
    check = checks.check_recall(tied, "s2_to_s1", CONFIG)
    assert (check.name, check.passed) == ("recall_s2_to_s1", False)
    assert check.value == pytest.approx(1 / 8)
    assert check.reason == "recall@1 s2 to s1 among 8 patches is 0.125, below the required 0.250"
    perfect = checks.check_recall(ranks_of(np.ones(40, bool)), "s1_to_s2", CONFIG)
    assert (perfect.value, perfect.asked, perfect.passed) == (pytest.approx(1.0), 0.25, True)


def test_required_recall_is_at_most_one_with_few_pairs():
    check = checks.check_recall(
        ranks_of([True, True]), "s1_to_s2", ProbeConfig(min_recall_over_chance=3.0)
    )
    assert (check.asked, check.value, check.passed) == (1.0, pytest.approx(1.0), True)


def test_collapse_to_a_point_and_to_a_line_are_told_apart():
    rng = np.random.default_rng(0)
    point = np.tile(rng.normal(size=16), (60, 1))
    angle = rng.uniform(0, np.pi, 60)
    line = np.stack([np.cos(angle), np.sin(angle), *np.zeros((14, 60))], axis=1)
    sphere = rng.normal(size=(60, 16))
    outcomes = {}
    for name, rows in (("point", point), ("line", line), ("sphere", sphere)):
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        found = checks.check_collapse(rows.astype(np.float32), "s1", CONFIG)
        outcomes[name] = tuple(check.passed for check in found)
    assert outcomes == {"point": (False, False), "line": (True, False), "sphere": (True, True)}


def test_share_of_finite_patches():
    rows = np.ones((8, 3), np.float32)
    rows[2, 1] = np.nan
    check = checks.check_finite(rows, "s2")
    assert (check.value, check.passed) == (7 / 8, False)
    assert checks.check_finite(rows[3:], "s2").passed


def test_accuracy_weighs_classes_alike():
    truth = np.zeros(len(BLOCK), int)
    truth[:12] = 1
    always_zero = checks.check_accuracy(
        classified(truth, np.zeros_like(truth)), "s1", ProbeConfig(min_accuracy=0.6)
    )
    assert (always_zero.value, always_zero.passed) == (0.5, False)
    assert (
        always_zero.reason
        == "s1: the linear probe's balanced accuracy is 0.500, below the required 0.600"
    )


def test_equal_recall_passes_and_clearly_lower_recall_is_refused():
    rng = np.random.default_rng(1)
    good, bad = ranks_of(some(rng, 0.8)), ranks_of(some(rng, 0.4))
    same = compare_recall(good, good, BLOCK)
    assert (same.value, same.low, same.high, same.passed) == (0.0, 0.0, 0.0, True)
    worse = compare_recall(bad, good, BLOCK)
    assert not worse.passed
    assert worse.value == pytest.approx(bad.recall_at(1) - good.recall_at(1))
    assert worse.low < worse.value < worse.high < -CONFIG.tolerance
    values = bad.recall_at(1), good.recall_at(1)
    expected = "recall@1 s1 to s2 is {:.3f}, the last published encoder's {:.3f}: ".format(*values)
    assert worse.reason.startswith(expected)
    assert compare_recall(good, bad, BLOCK).passed


@pytest.mark.parametrize("num_blocks", [6, 12])
def test_equal_encoders_are_refused_as_rarely_as_stated(num_blocks):
    # Blocks differ from each other, and each encoder has luck of its own in each block.
    rng = np.random.default_rng(num_blocks)
    config = dataclasses.replace(CONFIG, tolerance=0.0)
    block = np.repeat(np.arange(num_blocks), 10)
    num_trials, num_refused = 600, 0
    for _ in range(num_trials):
        base = rng.beta(6, 4, num_blocks)
        new, last = (
            rng.random(len(block)) < np.clip(base + rng.normal(0, 0.1, num_blocks), 0, 1)[block]
            for _ in range(2)
        )
        found = checks.compare_recall(
            ranks_of(new), ranks_of(last), direction="s1_to_s2", block=block, config=config
        )
        num_refused += not found.passed
    # Stated: 0.5 % for each comparison, 3 of 600 here; 10 are three standard errors
    # more. Percentiles of the resamples alone refuse 19 and 13.
    assert num_refused <= 3 + 3 * 3**0.5 + 2


def test_neighbours_are_drawn_together():
    # Worse in three of twelve blocks, by all of their patches: much, but of three
    # places only.
    last = np.ones(len(BLOCK), bool)
    new = ~np.isin(BLOCK, ["0", "1", "2"])
    by_block = compare_recall(ranks_of(new), ranks_of(last), BLOCK)
    by_patch = compare_recall(ranks_of(new), ranks_of(last), np.arange(len(BLOCK)))
    assert by_block.value == by_patch.value == pytest.approx(-0.25)
    assert by_block.high - by_block.low > 2 * (by_patch.high - by_patch.low)


def test_paired_interval_equals_a_plain_loop():
    rng = np.random.default_rng(3)
    new, last = some(rng, 0.5), some(rng, 0.6)
    found = compare_recall(ranks_of(new), ranks_of(last), BLOCK)
    draws = np.random.default_rng(9).integers(NUM_BLOCKS, size=(4000, NUM_BLOCKS))
    rows = np.arange(len(BLOCK)).reshape(NUM_BLOCKS, PER_BLOCK)
    differences = [new[rows[draw]].mean() - last[rows[draw]].mean() for draw in draws]
    assert [found.low, found.high] == pytest.approx(
        # Percentiles that make up for the few blocks: t(0.995; 11) * sqrt(12 / 11) is
        # 3.244, and 0.06 % of the normal distribution lie below -3.244.
        np.percentile(differences, [0.06, 99.94]),
        abs=0.03,
    )


def test_few_blocks_leave_a_comparison_undecided():
    few = np.where(BLOCK < "3", "a", "b")
    worst, best = ranks_of(np.zeros(len(BLOCK), bool)), ranks_of(np.ones(len(BLOCK), bool))
    check = compare_recall(worst, best, few)
    assert (check.passed, check.judged, check.low, check.high) == (True, False, None, None)
    assert check.reason.endswith("2 blocks are too few to tell a difference from noise")


def test_accuracy_is_compared_on_the_same_patches():
    rng = np.random.default_rng(4)
    truth = rng.integers(3, size=len(BLOCK))
    near = np.where(some(rng, 0.9), truth, (truth + 1) % 3)
    far = np.where(some(rng, 0.5), truth, (truth + 1) % 3)
    good, bad = classified(truth, near), classified(truth, far)
    check = checks.compare_accuracy(bad, good, sensor="s1", other_name="last", config=CONFIG)
    mean = [np.mean([(p[truth == k] == k).mean() for k in range(3)]) for p in (far, near)]
    assert check.value == pytest.approx(mean[0] - mean[1])
    assert not check.passed
    assert "s1: the linear probe's balanced accuracy is 0." in check.reason
    assert checks.compare_accuracy(
        good, bad, sensor="s1", other_name="random", config=CONFIG
    ).passed
    asked = dataclasses.replace(CONFIG, min_gain_over_random=0.7)
    refused = checks.compare_accuracy(good, bad, sensor="s1", other_name="random", config=asked)
    assert (refused.name, refused.asked, refused.passed) == ("accuracy_s1_over_random", 0.7, False)
    assert "an untrained encoder's 0." in refused.reason


def test_report_survives_json_and_is_blessed_only_when_all_passed():
    passed = checks.check_recall(ranks_of(np.ones(40, bool)), "s1_to_s2", CONFIG)
    failed = checks.check_recall(ranks_of(np.zeros(40, bool)), "s2_to_s1", CONFIG)
    compared = compare_recall(
        ranks_of(some(np.random.default_rng(0), 0.5)),
        ranks_of(np.ones(len(BLOCK), bool)),
        BLOCK,
    )
    values = {"encoder": "new", "last_encoder": "old", "labels": "flood", "num_pairs": 40}
    values |= {"num_train_patches": 3, "num_eval_patches": 2, "notes": ("a note",)}
    report = ProbeReport(**values, checks=(passed, failed, compared))
    assert from_json(report.to_json()) == report
    assert report.refusals == (failed.reason, compared.reason)
    assert not report.is_blessed
    assert '"is_blessed": false' in report.to_json()
    assert ProbeReport(**values, checks=(passed,)).is_blessed
    with pytest.raises(ValueError, match="checks must hold at least one check"):
        ProbeReport(**values, checks=())


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("num_pairs", 1, "num_pairs must be at least 2, got 1"),
        ("num_candidates", 1, "num_candidates must be at least 2, got 1"),
        ("num_train_patches", 0, "num_train_patches must be at least 1, got 0"),
        ("min_recall_over_chance", -0.5, "min_recall_over_chance must be at least 0, got -0.5"),
        ("min_spread", 1.5, "min_spread must be within 0 and 1, got 1.5"),
        ("tolerance", -0.1, "tolerance must be within 0 and 1, got -0.1"),
        ("min_gain_over_random", 2.0, "min_gain_over_random must be within -1 and 1, got 2.0"),
        ("confidence", 1.0, "confidence must be between 0 and 1, both excluded, got 1.0"),
    ],
)
def test_wrong_thresholds_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**{setting: value})
