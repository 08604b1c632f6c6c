"""The rules by which a checkup and a train loss become alarms.

Input: config, loss, a checkup and that of the encoders as they began. Output: alarms by
name; the reason of a collapse. Called by `monitor.py`. docs/adr/0016 says why these
rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from beam_jobs.contracts.bands import Sensor
from models.config import PretrainConfig
from models.health import spread
from models.health.checkup import Checkup
from models.health.embedded_split import EmbeddedSplit

CONTROLS = ("shuffled", "none")
"""Objectives that are meant to learn nothing; what would be an illness elsewhere is their purpose."""

SOLVED_RECALL = 0.5
"""From this implied recall on a loss says that the task is solved, so that features without content are suspicious."""


def judged_from_step(config: PretrainConfig) -> float:
    """The first step at which anything is judged; infinity for controls."""
    if config.objective in CONTROLS:
        return math.inf
    return max(
        config.health.min_steps, math.ceil(config.optimizer.warmup_fraction * config.num_steps)
    )


def chance_loss(config: PretrainConfig, num_cells: int) -> float | None:
    """The loss in nats of guessing among all candidates; None where the loss is no cross-entropy over candidates.

    Args:
        config: names objective and batch size N.
        num_cells: cells of a patch's feature map, which "dense" tells apart.
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
    return losses.get(config.objective)


def implied_recall(config: PretrainConfig, loss: float) -> float | None:
    """The least recall@1 within the train batches that a mean loss allows, 0-1; None where it says nothing of recall.

    A row whose loss is below ln 2 gives its partner more than half of the probability,
    so the partner is the nearest ("sigmoid": partner above 0 and all others below). By
    Markov's inequality no more than loss / ln 2 of the rows are not. The terms beside
    the cross-modal one are at least 0, so the bound holds for sums, too.
    """
    # "dense": its global term alone is about patches.
    share = 1.0 - config.dense_weight if config.objective == "dense" else 1.0
    if config.objective == "decur" or share == 0.0:
        return None
    return max(0.0, 1.0 - loss / (share * math.log(2.0)))


def find_collapse(
    config: PretrainConfig, split: EmbeddedSplit, sensors: Sequence[Sensor]
) -> str | None:
    """Why the embeddings of a trained sensor are collapsed; None when they are not."""
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
    checkup: Checkup,
    start: Checkup | None,
    sensors: Sequence[Sensor],
    num_cells: int,
) -> dict[str, str]:
    """Name -> what is wrong, in one line; empty when all is well.

    Args:
        config: objective and thresholds.
        loss: mean train loss of the last steps.
        checkup: of the encoders as they are.
        start: of the untrained encoders; None = not known, and progress over them is
            not asked for.
        sensors: those that the objective trains.
        num_cells: see `chance_loss`.
    """
    return dict(
        [
            *_stuck(config, loss, num_cells),
            *_beyond_recall(config, loss, checkup, sensors),
            *_beyond_probe(config, loss, checkup, start, sensors),
            *_shortcuts(config, checkup, sensors),
        ]
    )


def _stuck(config: PretrainConfig, loss: float, num_cells: int) -> Iterator[tuple[str, str]]:
    chance = chance_loss(config, num_cells)
    if chance is not None and loss > chance - config.health.stuck_margin_nats:
        yield (
            "stuck",
            f"train loss {loss:.3f} is that of guessing ({chance:.3f}): nothing is learned",
        )


def _beyond_recall(
    config: PretrainConfig, loss: float, checkup: Checkup, sensors: Sequence[Sensor]
) -> Iterator[tuple[str, str]]:
    implied = implied_recall(config, loss)
    # An objective within one sensor promises nothing about the other.
    if implied is None or len(sensors) < 2:
        return
    # Fewer candidates make it easier, so the bound holds when the eval split is smaller
    # than a batch.
    num_candidates = min(config.global_batch_size, checkup.num_patches)
    found = sum(ranks.recall_among(num_candidates) for ranks in checkup.ranks.values()) / len(
        checkup.ranks
    )
    if implied - found > config.health.max_recall_gap:
        yield (
            "loss_beyond_recall",
            f"train loss {loss:.3f} implies recall@1 of at least {implied:.2f} among {config.global_batch_size}, held-out "
            f"pairs have {found:.2f} among {num_candidates}: memorized pairs, leaking batches or a shortcut",
        )


def _beyond_probe(
    config: PretrainConfig,
    loss: float,
    checkup: Checkup,
    start: Checkup | None,
    sensors: Sequence[Sensor],
) -> Iterator[tuple[str, str]]:
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
        told = ", ".join(f"{sensor} {gain:+.3f}" for sensor, gain in gains.items())
        yield (
            "loss_beyond_probe",
            f"train loss {loss:.3f} says solved, but features tell no more of the other sensor's measurements than untrained "
            f"ones (R2 {told}): look for no-data edges that both sensors share",
        )


def _shortcuts(
    config: PretrainConfig, checkup: Checkup, sensors: Sequence[Sensor]
) -> Iterator[tuple[str, str]]:
    for item in checkup.shortcuts:
        if (
            item.score is not None
            and item.sensor in sensors
            and item.strength > config.health.max_shortcut
        ):
            yield (
                f"shortcut_{item.nuisance}_{item.sensor}",
                f"the {item.sensor} embedding tells {item.nuisance} (score {item.score.score:.2f}, chance "
                f"{item.score.chance:.2f}, limit {config.health.max_shortcut:.2f} of the way to 1)",
            )
