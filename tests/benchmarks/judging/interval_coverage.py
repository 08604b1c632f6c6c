"""Measure how often the intervals of `models/intervals.py` cover the truth.

`python -m tests.benchmarks.judging.interval_coverage` prints the tables of that module and of
`comparison.py` of the claim check, in about two minutes. The tests of both run the same
simulations with fewer samples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
from scipy import stats

from models.intervals import FloatArray, Interval, Resampling, bootstrap
from pipeline.claim_check import comparison
from pipeline.claim_check.comparison import Difference

NUM_TRIALS = 1500
EVEN, UNEVEN = 0.0, 0.7
"""Spread of the sizes of units: standard deviation of their logarithm."""


def standard_error(rate: float, num_trials: int) -> float:
    """Return the standard error of a measured rate."""
    return float(np.sqrt(rate * (1.0 - rate) / num_trials))


def draw_units(rng: np.random.Generator, num_units: int, spread: float = UNEVEN) -> FloatArray:
    """Return hits and union of one class in each unit [U, 2]."""
    size = np.exp(rng.normal(0.0, spread, num_units))
    water = size * rng.beta(1, 3, num_units)
    hits = water * rng.beta(6, 2, num_units)
    return np.stack([hits, water + (size - water) * rng.beta(1.5, 12, num_units)], axis=1)


def iou(sums: FloatArray) -> FloatArray:
    """Return hits over union [...] of sums [..., 2]."""
    return np.asarray(sums[..., 0] / sums[..., 1])


@cache
def true_iou(spread: float = UNEVEN) -> float:
    """Return the IoU of so many units that chance plays no part."""
    return float(iou(draw_units(np.random.default_rng(0), 500_000, spread).sum(axis=0)))


def draw_arms(
    rng: np.random.Generator, num_seeds: int, num_units: int
) -> tuple[FloatArray, FloatArray]:
    """Return hits and union [S, U, 2] of two arms whose expected IoU is equal.

    Seeds and units differ by chance, in each arm.
    """
    size = 400
    water = np.round(size * rng.beta(2, 5, num_units)).astype(int)
    arms = []
    for _ in range(2):
        accuracy = 0.75 + rng.normal(0.0, 0.01, num_units) + rng.normal(0, 0.03, (num_seeds, 1))
        hits = rng.binomial(np.broadcast_to(water, accuracy.shape), accuracy)
        dry = rng.binomial(np.broadcast_to(size - water, accuracy.shape), accuracy)
        arms.append(np.stack([hits, size - dry], axis=-1).astype(float))
    return arms[0], arms[1]


def differences(num_seeds: int, num_units: int, num_trials: int) -> list[Difference]:
    """Return the differences of equal arms in many trials."""
    rng = np.random.default_rng([num_seeds, num_units])
    how, groups = Resampling(num_resamples=400), np.arange(num_units)
    return [
        comparison.compare(*draw_arms(rng, num_seeds, num_units), iou, groups, how)
        for _ in range(num_trials)
    ]


def coverage(found: Iterable[Interval], truth: float) -> float:
    """Return the share of intervals that hold the truth."""
    return float(np.mean([one.low <= truth <= one.high for one in found]))


def _by_scipy(method: str) -> Callable[[FloatArray], Interval]:
    """Return SciPy's bootstrap, as a yardstick."""

    def interval(units: FloatArray) -> Interval:
        found = stats.bootstrap(
            (units[:, 0], units[:, 1]),
            lambda hits, union, axis: hits.sum(axis=axis) / union.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=1000,
            method=method,
            random_state=0,
        ).confidence_interval
        return Interval(value=float(iou(units.sum(axis=0))), low=found.low, high=found.high)

    return interval


def measure() -> dict[str, object]:
    """Return the coverage of "95 %" intervals by kind, number of units and of seeds."""
    kinds: dict[str, Callable[[FloatArray], Interval]] = {
        "percentiles": _by_scipy("percentile"),
        "bootstrap": lambda units: bootstrap(units, iou),
        "BCa": _by_scipy("BCa"),
    }
    result: dict[str, object] = {}
    for num_units in (2, 3, 5, 8, 12, 40):
        for name, kind in kinds.items():
            result[f"{name}, {num_units} units"] = [
                round(
                    coverage(
                        (
                            kind(draw_units(rng, num_units, spread))
                            for rng in [np.random.default_rng(num_units)]
                            for _ in range(NUM_TRIALS)
                        ),
                        true_iou(spread),
                    ),
                    3,
                )
                for spread in (EVEN, UNEVEN)
            ]
    for num_seeds in (3, 5):
        for num_units in (6, 20):
            found = differences(num_seeds, num_units, NUM_TRIALS)
            result[f"equal arms, {num_seeds} seeds, {num_units} units"] = {
                "paired_difference covers": np.mean([d.low <= 0 <= d.high for d in found]),
                "over_seeds covers": np.mean(
                    [d.over_seeds[0] <= 0 <= d.over_seeds[1] for d in found]
                ),
                "paired_difference above 0": np.mean([d.low > 0 for d in found]),
                "supported": np.mean([d.verdict == "supported" for d in found]),
            }
    return result


if __name__ == "__main__":
    for name, figures in measure().items():
        print(json.dumps({name: figures}), flush=True)
