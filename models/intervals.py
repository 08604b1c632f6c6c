"""Confidence intervals by the block bootstrap.

Input: per-patch values whose sums give a statistic, and the spatial block of each
patch. Output: an `Interval`. NumPy only.

The bootstrap draws the data again and again with replacement and computes the statistic
each time; the spread of the results shows how much it depends on the data. The block
bootstrap draws whole spatial blocks, because neighbouring patches look alike. Drawing
single patches would make the interval too narrow.
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
"""Enough for percentile intervals.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 14.2.
"""

MIN_BLOCKS = 5
"""With fewer blocks, an interval is not reliable."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic and its confidence interval.

    Attributes:
        value: statistic of all patches.
        low: lower end of the interval.
        high: upper end of the interval.
    """

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
    """Return a statistic of all patches with its percentile interval.

    Args:
        parts: values to sum over the patches [M, P].
        statistic: maps sums [R, P] to values [R]; NaN where it is not defined.
        groups: group of each patch [M], such as its block. Whole groups are drawn.
            None: each patch is its own group.
        confidence: share of the resamples inside the interval, 0-1.
        seed: seed of the resamples.

    Returns:
        The interval. Resamples for which the statistic is NaN are left out; both ends
        are NaN when no other resample is left.

    Raises:
        ValueError: there is no patch.
    """
    if not len(parts):
        raise ValueError("a bootstrap needs at least one patch, got none")
    labels = np.arange(len(parts)) if groups is None else np.asarray(groups)
    index = np.unique(labels, return_inverse=True)[1]
    num_groups = int(index.max()) + 1
    by_group = np.zeros((num_groups, parts.shape[1]))
    np.add.at(by_group, index, parts)
    # Count how often each group is drawn. The sums over all resamples are then one
    # matrix product.
    draws = np.random.default_rng(seed).multinomial(
        num_groups, np.full(num_groups, 1 / num_groups), NUM_RESAMPLES
    )
    values = statistic(draws @ by_group)
    # A resample without any patch of the measured class says nothing about that class.
    values = values[~np.isnan(values)]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail]) if len(values) else (np.nan, np.nan)
    value = float(statistic(parts.sum(axis=0, keepdims=True))[0])
    return Interval(value=value, low=float(low), high=float(high))
