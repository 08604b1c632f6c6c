"""The judgement: margins, guards, and how often equal models are refused or taken."""

import dataclasses

import numpy as np
import pytest

from models.gate import verdict as verdict_lib
from models.gate.config import GateConfig
from models.gate.judgement import Scored, join, judge
from models.scores.patch_scores import select
from tests.data.networks.make_judged import make_judged as scored
from tests.data.networks.make_judged import simulate

CHAMPION = "serving/flood/7"


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_a_better_model_is_blessed_and_a_worse_one_refused(rng):
    better = judge(scored(rng, 0.9, 0.8), GateConfig(), CHAMPION)
    assert better.outcome == "blessed"
    assert better.comparisons[0].low > 0.05
    worse = judge(scored(rng, 0.8, 0.9), GateConfig(), CHAMPION)
    assert worse.outcome == "refused"
    assert worse.reasons[0].startswith("mean_iou 0.6")
    assert "margin 0.02" in worse.reasons[0]


def test_the_numbers_are_those_of_each_model(rng):
    both = scored(rng, 0.9, 0.8)
    first = judge(both, GateConfig(), CHAMPION).comparisons[0]
    swapped = Scored(candidate=both.champion, champion=both.candidate)
    second = judge(swapped, GateConfig(), CHAMPION).comparisons[0]
    assert first.candidate == second.champion > first.champion == second.candidate
    assert first.low == pytest.approx(-second.high, abs=0.01)
    dry, water = np.diag(both.candidate.confusion.sum(0)) / (
        both.candidate.confusion.sum((0, 1))
        + both.candidate.confusion.sum((0, 2))
        - np.diag(both.candidate.confusion.sum(0))
    )
    assert first.candidate == pytest.approx((dry + water) / 2)


def test_equal_answers_are_not_published_again(rng):
    both = scored(rng, 0.9, 0.9)
    found = judge(Scored(candidate=both.champion, champion=both.champion), GateConfig(), CHAMPION)
    assert found.outcome == "in_service"
    assert not found.is_blessed


@pytest.mark.parametrize(
    ("column", "bad", "good", "name"),
    [
        ("event", "storm", "spring", "event=storm"),
        ("orbit_state", "descending", "ascending", "orbit_state=descending"),
        ("lat", -35.0, 5.0, "latitude="),
    ],
)
def test_a_model_good_on_average_and_bad_on_one_slice_is_refused(rng, column, bad, good, name):
    is_bad = np.arange(40 * 3) // 3 % 4 == 2
    both = scored(rng, np.where(is_bad, 0.80, 0.99), 0.9, num_blocks=40)
    values = {column: np.where(is_bad, bad, good)}
    both = Scored(
        candidate=dataclasses.replace(both.candidate, **values),
        champion=dataclasses.replace(both.champion, **values),
    )
    whole = judge(both, GateConfig(guards={}), CHAMPION)
    assert whole.outcome == "blessed"
    guarded = judge(both, GateConfig(), CHAMPION)
    assert guarded.outcome == "refused"
    (reason,) = guarded.reasons
    assert reason.startswith(name)
    assert ": mean_iou 0.6" in reason
    unguarded = judge(both, GateConfig(guards={"class": 0.05}), CHAMPION)
    assert unguarded.outcome == "blessed"


def test_a_class_that_is_lost_is_refused(rng):
    both = scored(rng, 0.95, 0.9)
    # The candidate finds half of the water.
    confusion = both.candidate.confusion.copy()
    moved = confusion[:, 1, 1] // 2
    confusion[:, 1, 1] -= moved
    confusion[:, 1, 0] += moved
    both = dataclasses.replace(
        both, candidate=dataclasses.replace(both.candidate, confusion=confusion)
    )
    found = judge(both, GateConfig(margin=0.9), CHAMPION)
    assert [reason.split(":")[0] for reason in found.reasons][-1] == "class=class1"


def test_slices_too_small_to_judge_are_noted_and_refuse_nothing(rng):
    both = scored(rng, 0.9, 0.9, events=1)
    event = both.candidate.event.copy()
    event[:2] = "tiny"
    parts = [dataclasses.replace(one, event=event) for one in (both.candidate, both.champion)]
    confusion = parts[0].confusion.copy()
    confusion[:2] = confusion[:2, :, ::-1]
    both = Scored(candidate=dataclasses.replace(parts[0], confusion=confusion), champion=parts[1])
    found = judge(both, GateConfig(margin=0.2), CHAMPION)
    assert found.outcome == "blessed"
    assert [note.split(":")[0] for note in found.notes] == ["event=tiny"]


def test_few_blocks_cannot_decide(rng):
    found = judge(scored(rng, 0.95, 0.8, num_blocks=4), GateConfig(), CHAMPION)
    assert found.outcome == "refused"
    assert "fewer than 5" in found.reasons[0]


def test_both_models_must_see_the_same_pixels(rng):
    both = scored(rng, 0.9, 0.9)
    confusion = both.champion.confusion.copy()
    confusion[0, 0, 0] += 1
    with pytest.raises(ValueError, match="same pixels"):
        Scored(
            candidate=both.candidate,
            champion=dataclasses.replace(both.champion, confusion=confusion),
        )
    with pytest.raises(ValueError, match="same patches"):
        Scored(candidate=both.candidate, champion=select(both.champion, np.arange(60)[::-1]))


def test_patches_of_both_test_splits_count_once(rng):
    both = scored(rng, 0.9, 0.8)
    first, second = both.at(np.arange(40)), both.at(np.arange(30, 60))
    joined = join(first, second)
    assert sorted(joined.champion.patch_id) == sorted(both.champion.patch_id)
    assert join(both, second) is both


def test_a_verdict_is_json_and_back(rng):
    found = judge(scored(rng, 0.9, 0.8, events=3), GateConfig(), CHAMPION)
    assert verdict_lib.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"margin": -0.1}, "margin must be at least 0 and below 1, got -0.1"),
        # A margin of 1 can refuse nothing.
        ({"margin": 1.0}, "margin must be at least 0 and below 1, got 1.0"),
        ({"guards": {"event": 1.5}}, "guards.event must be at least 0 and below 1, got 1.5"),
        ({"confidence": 0.3}, "confidence must be at least 0.5 and below 1, got 0.3"),
    ],
)
def test_limits_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        GateConfig(**values)


def test_the_gate_errs_at_the_stated_rates():
    """The stated rates are 2.5 %; three standard errors of so few runs are allowed."""
    num_runs = 60
    rates = simulate(num_runs=num_runs, num_resamples=200)
    limit = 0.025 + 3 * (0.025 * 0.975 / num_runs) ** 0.5
    assert rates.equal_refused_by_guards <= limit
    assert rates.worse_taken <= limit
    assert rates.equal_taken >= 0.3
    assert rates.better_taken >= 0.9
