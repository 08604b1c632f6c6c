import math

import numpy as np
import pytest

from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.health import alarms
from models.health.checkup import examine
from models.health.config import HealthConfig
from models.objectives.chance import Chance
from tests.data.networks import make_embeddings

BOTH = ("s1", "s2")


def config(**changes):
    options = {"num_steps": 1000, "global_batch_size": 64, **changes}
    return PretrainConfig(encoder=EncoderConfig(backbone="small", embedding_dim=16), **options)


def shuffled_partners(split):
    """Embeddings as rich as before, of which none finds its partner."""
    rng = np.random.default_rng(5)
    return make_embeddings.replace(
        split, embeddings={**split.embeddings, "s2": rng.permutation(split.embeddings["s2"])}
    )


def with_random_features(split, share=1.0):
    rng = np.random.default_rng(6)
    noise = {s: rng.normal(size=f.shape).astype(np.float32) for s, f in split.features.items()}
    return make_embeddings.replace(
        split, features={s: (1 - share) * f + share * noise[s] for s, f in split.features.items()}
    )


@pytest.fixture(scope="module")
def healthy():
    return examine(make_embeddings.make_split())


@pytest.fixture(scope="module")
def untrained():
    return examine(with_random_features(shuffled_partners(make_embeddings.make_split())))


def names(loss, checkup, start, sensors=BOTH, chance=None, **changes):
    settings = config(**changes)
    judged = {"checkup": checkup, "start": start, "sensors": sensors}
    chance = chance or alarms.full_chance(settings, 16)
    return set(alarms.find_alarms(settings, loss, **judged, chance=chance))


def test_healthy_training_raises_no_alarm_at_any_loss(healthy, untrained):
    for loss in (0.02, 0.5, 2.0, 4.0):
        assert names(loss, healthy, untrained) == set()


def test_checkup_tells_each_figure_by_name(healthy):
    metrics = healthy.metrics()
    assert metrics["num_health_patches"] == 160
    assert metrics["recall_at_1/s1_to_s2"] > 0.9
    assert metrics["content_r2/s1"] > 0.9
    assert 0.0 < metrics["alignment/s1_s2"] < 1.0
    assert metrics["spread/s2"] > 0.8
    assert metrics["shortcut_orbit_state/s1"] == pytest.approx(0.5, abs=0.25)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize(
    ("objective", "chance"),
    [
        ("multimodal", math.log(64)),
        ("multimodal_2n", math.log(127)),
        ("simclr_s1", math.log(127)),
        ("multimodal_intra", math.log(64) + 2 * math.log(127)),
        ("dense", 0.5 * math.log(64) + 0.5 * math.log(64 * 16)),
        ("sigmoid", None),
        ("decur", None),
    ],
)
def test_loss_of_guessing_is_stuck_where_the_loss_is_a_cross_entropy(
    objective, chance, healthy, untrained
):
    assert alarms.full_chance(config(objective=objective), 16).loss == (
        None if chance is None else pytest.approx(chance)
    )
    expected = set() if chance is None else {"stuck"}
    assert names(chance or 4.0, healthy, untrained, objective=objective) == expected
    assert names((chance or 4.0) - 0.5, healthy, untrained, objective=objective) == set()


def test_loss_of_guessing_is_that_of_the_batches(healthy, untrained):
    # Only 5 of 64 candidates count in these batches, so a loss of ln 64 - 0.5 shows no
    # progress.
    few = Chance(loss=math.log(5), num_candidates=5.0)
    assert names(math.log(64) - 0.5, healthy, untrained, chance=few) == {"stuck"}
    assert names(math.log(5) - 0.04, healthy, untrained, chance=few) == {"stuck"}
    assert names(math.log(5) - 0.06, healthy, untrained, chance=few) == set()
    # Without any negative the loss is 0. This solves no task.
    none = Chance(loss=0.0, num_candidates=1.0)
    start = examine(with_random_features(make_embeddings.make_split(), share=0.9))
    hollow = examine(with_random_features(make_embeddings.make_split(), share=0.95))
    assert names(0.0, hollow, start, chance=none) == {"stuck"}


def test_held_out_pairs_compete_as_those_of_the_batches_do(untrained):
    # Four neighbours look the same, and another four are 1 degree away.
    split = make_embeddings.make_split()
    place = np.arange(160) // 4
    alike = make_embeddings.replace(
        split,
        embeddings={s: e[4 * place] for s, e in split.embeddings.items()},
        lon=place.astype(np.float32),
        lat=np.zeros(160, np.float32),
    )
    far = {"min_negative_km": 10.0}
    assert alarms.ignored_km(config(**far)) == 10.0
    assert alarms.ignored_km(config(**far, false_negative_weight=1.0)) == 0.0
    apart, all_compete = examine(alike, 10.0), examine(alike)
    assert apart.ranks_apart["s1_to_s2"].num_keys.tolist() == [157] * 160
    assert apart.metrics() == all_compete.metrics()
    chance = Chance(loss=math.log(60), num_candidates=60.0)
    # Among 60 of 160 patches 1.1 neighbours of a pair are met on average.
    strict = {"health": HealthConfig(max_recall_gap=0.3)}
    assert names(0.05, all_compete, untrained, chance=chance, **strict) == {"loss_beyond_recall"}
    assert names(0.05, apart, untrained, chance=chance, **strict, **far) == set()


def test_invalid_pairs_of_the_batches_are_no_candidates(untrained):
    split = make_embeddings.make_split()
    rng = np.random.default_rng(7)
    weak = make_embeddings.replace(
        split,
        embeddings={
            s: make_embeddings.unit(e + 0.3 * rng.normal(size=e.shape))
            for s, e in split.embeddings.items()
        },
    )
    checkup = examine(weak)
    ranks = checkup.ranks["s1_to_s2"]
    assert ranks.recall_among(8) - ranks.recall_among(64) > 0.25
    limit = ranks.recall_among(8) - 0.05
    loss = (1.0 - limit - 0.25) * math.log(2.0)
    full, few = (Chance(loss=math.log(n), num_candidates=n + 0.7) for n in (64, 8))
    assert names(loss, checkup, untrained, chance=full) == {"loss_beyond_recall"}
    assert names(loss, checkup, untrained, chance=few) == set()


def test_implied_recall_is_a_true_lower_bound():
    rng = np.random.default_rng(0)
    settings = config()
    for noise in (0.05, 0.3, 0.8, 2.0):
        s1 = make_embeddings.unit(rng.normal(size=(64, 16)))
        s2 = make_embeddings.unit(s1 + noise * rng.normal(size=(64, 16)) / 4)
        logits = s1 @ s2.T / 0.05
        losses = np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)
        recall = np.mean(logits.argmax(axis=1) == np.arange(64))
        assert alarms.implied_recall(settings, float(losses.mean())) <= recall
    assert alarms.implied_recall(settings, 0.19) == pytest.approx(1 - 0.19 / math.log(2))
    assert alarms.implied_recall(settings, 1.23) == 0.0
    assert alarms.implied_recall(config(objective="dense"), 0.19) == pytest.approx(
        1 - 0.38 / math.log(2)
    )
    assert alarms.implied_recall(config(objective="dense", dense_weight=1.0), 0.1) is None
    assert alarms.implied_recall(config(objective="decur"), 0.1) is None


def test_loss_that_implies_more_recall_than_held_out_pairs_have_is_an_alarm(untrained, healthy):
    memorized = examine(shuffled_partners(make_embeddings.make_split()))
    assert names(0.1, memorized, untrained) == {"loss_beyond_recall"}
    assert names(1.5, memorized, untrained) == set()
    # Within one sensor nothing is promised about the other.
    assert names(0.1, memorized, untrained, sensors=("s1",), objective="simclr_s1") == set()
    assert names(0.1, memorized, untrained, objective="decur") == set()


def test_solved_task_without_content_is_an_alarm(healthy):
    # What the trial with shared no-data margins showed: loss 0.19, pairs found,
    # features as good as untrained ones.
    start = examine(with_random_features(make_embeddings.make_split(), share=0.9))
    hollow = examine(with_random_features(make_embeddings.make_split(), share=0.95))
    assert names(0.19, hollow, start) == {"loss_beyond_probe"}
    assert names(1.23, hollow, start) == set()
    # Encoders that began from an earlier training have little left to gain.
    assert names(0.19, hollow, None) == set()
    assert names(0.19, healthy, start) == set()


def test_shortcut_beyond_the_limit_is_an_alarm_of_a_trained_sensor(untrained):
    split = make_embeddings.make_split()
    known = examine(
        make_embeddings.plant(split, "s1", (split.orbit_state == "ascending").astype(float), 20.0)
    )
    assert "shortcut_orbit_state_s1" in names(2.0, known, untrained)
    assert names(2.0, known, untrained, health=HealthConfig(max_shortcut=1.0)) == set()
    assert names(2.0, known, untrained, sensors=("s2",), objective="simclr_s2") == set()


def test_collapse_is_judged_for_trained_sensors_only():
    split = make_embeddings.make_split()
    constant = make_embeddings.unit(np.ones((160, 16)))
    collapsed = make_embeddings.replace(split, embeddings={**split.embeddings, "s2": constant})
    assert alarms.find_collapse(config(), split, BOTH) is None
    assert alarms.find_collapse(config(), collapsed, BOTH).startswith("s2 spread is ")
    assert alarms.find_collapse(config(objective="simclr_s1"), collapsed, ("s1",)) is None


def test_nothing_is_judged_before_the_warm_up_ends_and_controls_never():
    assert alarms.judged_from_step(config()) == 300
    slow = OptimizerConfig(warmup_fraction=0.5)
    assert alarms.judged_from_step(config(optimizer=slow)) == 500
    assert all(
        alarms.judged_from_step(config(objective=name)) == math.inf for name in ("shuffled", "none")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_patches": 1}, "max_patches must be at least 2, got 1"),
        ({"check_every": -1}, "check_every must be at least 0, got -1"),
        ({"min_spread": 1.5}, "min_spread must be within 0 and 1, got 1.5"),
    ],
)
def test_thresholds_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        HealthConfig(**change)
