"""Make the counts of two invented models on the same patches, and judge many such pairs.

A model is a share of pixels that it gets right, which differs from patch to patch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from models.gate.config import GateConfig
from models.gate.judgement import Scored, judge
from tests.data.networks.make_scores import make_scores

MARGIN = 0.03
WORSE = 0.884
"""Hit rate of a model whose mean IoU is worse by MARGIN than that of one with 0.9."""
BETTER = 0.93


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often the gate decided so, 0-1.

    Attributes:
        worse_taken: models that are worse by exactly the margin, and were taken.
        equal_taken: equal models that the whole test let pass.
        equal_refused_by_guards: equal models that some guard refused.
        better_taken: better models that were taken.
    """

    worse_taken: float
    equal_taken: float
    equal_refused_by_guards: float
    better_taken: float


def make_judged(
    rng: np.random.Generator,
    candidate: float | np.ndarray,
    champion: float | np.ndarray,
    *,
    num_blocks: int = 20,
    spread: float = 0.02,
    events: int = 1,
) -> Scored:
    """Return the counts of two models on three patches in each block.

    Args:
        rng: random numbers.
        candidate: share of right pixels, one or by patch.
        champion: the same of the model in service.
        num_blocks: number of blocks.
        spread: standard deviation of the share between patches.
        events: number of events that the blocks are spread over.
    """
    num_patches = num_blocks * 3
    base = make_scores(num_patches=num_patches, num_blocks=num_blocks)
    block = np.repeat(np.arange(num_blocks), 3)
    base = dataclasses.replace(
        base,
        block=np.array([f"b{number}" for number in block]),
        event=np.array([f"event{number % events}" for number in block]),
        lat=np.full(num_patches, 5.0),
        orbit_state=np.full(num_patches, "ascending"),
    )
    water = rng.integers(40, 200, num_patches)
    truth = np.stack([400 - water, water], axis=-1)

    def counts(rate: float | np.ndarray) -> np.ndarray:
        rates = np.clip(rate + rng.normal(0.0, spread, num_patches), 0.0, 1.0)[:, None]
        hits = rng.binomial(truth, np.broadcast_to(rates, truth.shape))
        confusion = np.zeros((num_patches, 2, 2), np.int64)
        for label in (0, 1):
            confusion[:, label, label] = hits[:, label]
            confusion[:, label, 1 - label] = truth[:, label] - hits[:, label]
        return confusion

    return Scored(
        candidate=dataclasses.replace(base, confusion=counts(candidate)),
        champion=dataclasses.replace(base, confusion=counts(champion)),
    )


def simulate(num_runs: int, num_resamples: int) -> Rates:
    """Judge many pairs of models, of which the truth is known."""
    rng = np.random.default_rng(0)
    whole = GateConfig(margin=MARGIN, guards={}, num_resamples=num_resamples)
    guarded = GateConfig(margin=MARGIN, num_resamples=num_resamples)
    taken: dict[float, list[bool]] = {WORSE: [], BETTER: []}
    passed, refused = [], []
    for _ in range(num_runs):
        for rate, found in taken.items():
            both = make_judged(rng, rate, 0.9, spread=0.05)
            found.append(judge(both, whole, "in-service").is_blessed)
        both = make_judged(rng, 0.9, 0.9, spread=0.05, events=4)
        first, *others = judge(both, guarded, "in-service").comparisons
        passed.append(first.passed)
        refused.append(not all(one.passed for one in others))
    return Rates(
        worse_taken=float(np.mean(taken[WORSE])),
        equal_taken=float(np.mean(passed)),
        equal_refused_by_guards=float(np.mean(refused)),
        better_taken=float(np.mean(taken[BETTER])),
    )
