"""The rules that turn a checkup and a train loss into alarms.

Input: the config, the train loss, a `Checkup`, and the `Checkup` of the untrained
encoders. Output: alarms by name, and the reason of a collapse. `docs/adr/0016` gives
the reasons for these rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from beam_jobs.contracts.bands import Sensor
from models.config import PretrainConfig
from models.health import spread
from models.health.checkup import Checkup
from models.health.embedded_split import EmbeddedSplit
from models.health.shortcuts import Nuisance
from models.objectives.chance import Chance

AlarmName = Literal[
    "stuck",
    "loss_beyond_recall",
    "loss_beyond_probe",
    "shortcut_orbit_state_s1",
    "shortcut_latitude_s1",
    "shortcut_nodata_edge_s1",
    "shortcut_latitude_s2",
    "shortcut_nodata_edge_s2",
]

_SHORTCUT_ALARMS: dict[tuple[Nuisance, Sensor], AlarmName] = {
    ("orbit_state", "s1"): "shortcut_orbit_state_s1",
    ("latitude", "s1"): "shortcut_latitude_s1",
    ("nodata_edge", "s1"): "shortcut_nodata_edge_s1",
    ("latitude", "s2"): "shortcut_latitude_s2",
    ("nodata_edge", "s2"): "shortcut_nodata_edge_s2",
}
"""Alarm name of each nuisance and sensor."""

CONTROLS = ("shuffled", "none")
"""Objectives that are meant to learn nothing, so their encoders are not judged."""

SOLVED_RECALL = 0.5
"""From this implied recall on, the loss says that the task is solved.

Features that predict nothing about the ground are then suspicious.
"""


def judged_from_step(config: PretrainConfig) -> float:
    """Return the first step at which encoders are judged; infinity for controls."""
    if config.objective in CONTROLS:
        return math.inf
    return max(
        config.health.min_steps, math.ceil(config.optimizer.warmup_fraction * config.num_steps)
    )


def ignored_km(config: PretrainConfig) -> float:
    """Return the distance below which negatives do not count in full; 0 = all count."""
    return config.min_negative_km if config.false_negative_weight < 1.0 else 0.0


def full_chance(config: PretrainConfig, num_cells: int) -> Chance:
    """Return the chance of batches whose pairs are all valid and far from each other.

    Args:
        config: gives the objective and the batch size N.
        num_cells: number of cells in a patch's feature map, the candidates of "dense".
    """
    cross_modal, with_own = (
        math.log(config.global_batch_size),
        math.log(2 * config.global_batch_size - 1),
    )
    losses: dict[str, float] = {
        "multimodal": cross_modal,
        "multimodal_2n": with_own,
        "simclr_s1": with_own,
        "simclr_s2": with_own,
        "multimodal_intra": cross_modal + 2.0 * config.intra_weight * with_own,
        "dense": cross_modal + config.dense_weight * math.log(num_cells),
    }
    return Chance(loss=losses.get(config.objective), num_candidates=float(config.global_batch_size))


def implied_recall(config: PretrainConfig, loss: float) -> float | None:
    """Return a lower bound of recall@1 in the train batches that the loss implies.

    A row whose loss is below ln 2 gives its partner a probability above one half, so
    the partner is the nearest. With "sigmoid", its partner's logit is above 0 and all
    others are below. By Markov's inequality, at most loss / ln 2 of the rows have a
    loss of ln 2 or more. An objective may add other terms; they are at least 0, so the
    bound still holds. It is about negatives that count in full: a row that is not to
    tell its partner from a neighbour need not do so.

    Args:
        config: gives the objective and its weights.
        loss: mean train loss, in nats.

    Returns:
        The bound, 0-1. None when the loss says nothing about recall.
    """
    # The objective "dense" has two terms; only the global one compares patches.
    share = 1.0 - config.dense_weight if config.objective == "dense" else 1.0
    if config.objective == "decur" or share == 0.0:
        return None
    return max(0.0, 1.0 - loss / (share * math.log(2.0)))


def find_collapse(
    config: PretrainConfig, split: EmbeddedSplit, sensors: Sequence[Sensor]
) -> str | None:
    """Return why the embeddings of a trained sensor are collapsed, or None.

    Args:
        config: gives the thresholds.
        split: patches and their embeddings.
        sensors: sensors that the objective trains.
    """
    limits = {
        "min_spread": config.health.min_spread,
        "min_effective_rank": config.health.min_effective_rank,
    }
    reasons = (
        (sensor, spread.find_collapse(split.embeddings[sensor], **limits)) for sensor in sensors
    )
    return next((f"{sensor} {reason}" for sensor, reason in reasons if reason), None)


def find_alarms(
    config: PretrainConfig,
    loss: float,
    *,
    checkup: Checkup,
    start: Checkup | None,
    sensors: Sequence[Sensor],
    chance: Chance,
) -> dict[AlarmName, str]:
    """Return the alarms: name -> what is wrong, in one line; empty when all is well.

    Args:
        config: objective and thresholds.
        loss: mean train loss of the last steps, in nats.
        checkup: measures of the encoders as they are now; made with `ignored_km`.
        start: measures of the untrained encoders. None: unknown; progress is then not
            judged.
        sensors: sensors that the objective trains.
        chance: loss and candidates of guessing in the batches of the last steps.
    """
    stuck = dict(_stuck(config, loss, chance))
    # Where few negatives count, the loss of guessing is low itself and solves nothing.
    beyond_probe = () if stuck else _beyond_probe(config, loss, checkup, start, sensors)
    return dict(
        [
            *stuck.items(),
            *_beyond_recall(config, loss, checkup, sensors, chance.num_candidates),
            *beyond_probe,
            *_shortcuts(config, checkup, sensors),
        ]
    )


def _stuck(config: PretrainConfig, loss: float, chance: Chance) -> Iterator[tuple[AlarmName, str]]:
    if chance.loss is not None and loss > chance.loss - config.health.stuck_margin_nats:
        yield (
            "stuck",
            f"train loss {loss:.3f} is that of guessing ({chance.loss:.3f}): "
            "the model learns nothing",
        )


def _beyond_recall(
    config: PretrainConfig,
    loss: float,
    checkup: Checkup,
    sensors: Sequence[Sensor],
    num_train_candidates: float,
) -> Iterator[tuple[AlarmName, str]]:
    implied = implied_recall(config, loss)
    # An objective that trains one sensor does not align it with the other sensor.
    if implied is None or len(sensors) < 2:
        return
    # Fewer candidates make retrieval easier. So the bound also holds when the eval
    # split is smaller than a batch.
    num_candidates = max(1, min(math.floor(num_train_candidates), checkup.num_patches))
    # As in the loss: neighbours do not compete, whichever of them is nearest.
    ranks = checkup.ranks_apart.values()
    found = sum(item.recall_among(num_candidates) for item in ranks) / len(ranks)
    if implied - found > config.health.max_recall_gap:
        yield (
            "loss_beyond_recall",
            f"train loss {loss:.3f} implies recall@1 of at least {implied:.2f} among "
            f"{num_train_candidates:.0f}, but held-out pairs have {found:.2f} among "
            f"{num_candidates}: look for memorized pairs, leaking batches or a pretext shortcut",
        )


def _beyond_probe(
    config: PretrainConfig,
    loss: float,
    checkup: Checkup,
    start: Checkup | None,
    sensors: Sequence[Sensor],
) -> Iterator[tuple[AlarmName, str]]:
    if start is None:
        return
    implied = implied_recall(config, loss)
    gains = {
        s: checkup.content[s].score - start.content[s].score
        for s in sensors
        if s in checkup.content
    }
    if (
        implied is not None
        and implied >= SOLVED_RECALL
        and gains
        and max(gains.values()) < config.health.min_probe_gain
    ):
        listed = ", ".join(f"{sensor} {gain:+.3f}" for sensor, gain in gains.items())
        yield (
            "loss_beyond_probe",
            f"train loss {loss:.3f} says that the task is solved, but features predict the other "
            f"sensor's band means no better than untrained ones (R2 {listed}): look for no-data "
            "edges that both sensors share",
        )


def _shortcuts(
    config: PretrainConfig, checkup: Checkup, sensors: Sequence[Sensor]
) -> Iterator[tuple[AlarmName, str]]:
    for item in checkup.shortcuts:
        if (
            item.score is not None
            and item.sensor in sensors
            and item.strength > config.health.max_shortcut
        ):
            yield (
                _SHORTCUT_ALARMS[item.nuisance, item.sensor],
                f"the {item.sensor} embedding encodes {item.nuisance} (score "
                f"{item.score.score:.2f}, chance {item.score.chance:.2f}, limit "
                f"{config.health.max_shortcut:.2f} of the way to 1)",
            )
