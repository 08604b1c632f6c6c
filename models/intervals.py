"""Bootstrap intervals of a statistic of sums over patches, drawing whole groups of neighbours.

Input: per-patch parts whose sums give the statistic. Output: an `Interval`. Called by
`linear_probe.py`, the encoder's probe and `scores/summary.py`. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]
AnyArray = npt.NDArray[np.generic]

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000
"""Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 14.2 (1,000 for percentile intervals)."""

MIN_BLOCKS = 5
"""With fewer blocks to draw from, an interval says next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic of all patches, and between which values it lies when other patches are drawn."""

    value: float
    low: float
    high: float


def bootstrap(
    parts: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    *,
    groups: AnyArray | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a statistic.

    Args:
        parts: what is summed over the patches [M, P].
        statistic: sums [R, P] -> values [R]; NaN where it has none.
        groups: group of each patch [M], such as its block; whole groups are drawn,
            since neighbours are alike. None = each patch on its own.
        confidence: share of the resamples within the interval, 0-1.
        seed: of the resamples.

    Raises:
        ValueError: no patch.
    """
    if not len(parts):
        raise ValueError("a bootstrap needs at least one patch, got none")
    labels = np.arange(len(parts)) if groups is None else np.asarray(groups)
    index = np.unique(labels, return_inverse=True)[1]
    num_groups = int(index.max()) + 1
    by_group = np.zeros((num_groups, parts.shape[1]))
    np.add.at(by_group, index, parts)
    # How often each group is drawn: sums over a resample are then one product.
    draws = np.random.default_rng(seed).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), NUM_RESAMPLES
    )
    values = statistic(draws @ by_group)
    # A resample without the class that is measured says nothing of it.
    values = values[~np.isnan(values)]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail]) if len(values) else (np.nan, np.nan)
    value = float(statistic(parts.sum(axis=0, keepdims=True))[0])
    return Interval(value=value, low=float(low), high=float(high))
