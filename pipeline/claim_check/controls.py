"""Controls: trainings that must not succeed.

Outcomes and the trials on permuted labels -> entries of the claim document. If a
control succeeds, no verdict of the check can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from beam_jobs.contracts import settings
from pipeline.claim_check import measures
from pipeline.claim_check.config import Arm
from pipeline.claim_check.jobs import Trial
from pipeline.claim_check.outcomes import Outcomes, TrialKey
from pipeline.training_jobs import result_of

MAX_GAIN_NATS = 0.05
"""How far below chance the loss of shuffled pairs may end.

Over many epochs, a few pairs are learned by heart.
"""


def check_controls(
    outcomes: Outcomes, permuted: Mapping[Arm, Sequence[Trial]], global_batch_size: int
) -> list[dict[str, Any]]:
    """Return one entry for each control: `name`, `ok`, a sentence `text`, its numbers.

    Args:
        outcomes: results of all trials.
        permuted: each arm's trials in the primary cell, by seed, on labels of other
            patches.
        global_batch_size: N of pretraining; guessing among N patches has the loss ln N.
    """
    shuffled = _shuffled(outcomes, global_batch_size) if "shuffled" in outcomes.claim.arms else ()
    return [*shuffled, *(_permuted(outcomes, arm, trials) for arm, trials in permuted.items())]


def _shuffled(outcomes: Outcomes, global_batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield the controls of shuffled pairs, from which nothing can be learned."""
    claim = outcomes.claim
    jobs = [
        job
        for seed in range(claim.num_seeds)
        for job in outcomes.encoders(TrialKey("shuffled", claim.primary, seed))
    ]
    loss = float(np.mean([result_of(job.folder)["metrics"]["train_loss"] for job in jobs]))
    chance = math.log(global_batch_size)
    yield {
        "name": "shuffled loss",
        "ok": loss > chance - MAX_GAIN_NATS,
        "text": f"Shuffled pairs: the loss is {loss:.3f}; guessing has {chance:.3f}.",
        "loss": loss,
        "chance": chance,
    }
    if "random" not in claim.arms:
        return
    found = outcomes.difference(
        *(outcomes.tables(arm, claim.primary) for arm in ("shuffled", "random"))
    )
    better = "better than" if found.is_certain else "not better than"
    yield {
        "name": "shuffled over random",
        "ok": not found.is_certain,
        "text": f"The encoder of shuffled pairs is {better} an untrained one; difference in points "
        f"of {outcomes.measure.title}: {found.in_points}.",
        "difference": settings.to_dict(found),
    }


def _permuted(outcomes: Outcomes, arm: Arm, trials: Sequence[Trial]) -> dict[str, Any]:
    """Return the control of an arm on labels from which nothing can be learned."""
    tables = outcomes.tables_of(trials)
    found = outcomes.difference(tables, measures.at_random(tables))
    more = "more than" if found.is_certain else "no more than"
    return {
        "name": f"permuted labels, {arm}",
        "ok": not found.is_certain,
        "text": f"From labels of other patches, {arm} learns {more} chance; difference in points "
        f"of {outcomes.measure.title} to the same answers given at random: {found.in_points}.",
        "difference": settings.to_dict(found),
    }
