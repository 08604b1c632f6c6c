"""Spread of embeddings: whether they fill the unit sphere or have collapsed.

Input: unit-norm embeddings. Output: alignment, uniformity, effective rank, spread per
dimension, and the reason of a collapse. An encoder has collapsed when it gives all
patches nearly the same embedding. NumPy only.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

SpreadMeasure = Literal["uniformity", "effective_rank", "spread", "min_dimension_std"]

UNIFORMITY_SCALE = 2.0
"""Factor t of the Gaussian potential exp(-t distance^2).

Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.2.
"""

_ROWS_AT_A_TIME = 256
_ROUNDING = 1e-6
"""Rounding error of a coordinate of a unit vector in float32; less spread is none."""


def alignment(first: FloatArray, second: FloatArray) -> float:
    """Return the mean squared distance between partners, 0 to 4.

    Alignment says how near the two images of one patch are: 0 is the same point, 4 the
    opposite point; independent pairs have about 2.

    Args:
        first: embeddings [N, E], unit norm.
        second: embeddings [N, E], unit norm; row i is the partner of row i of `first`.

    Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.1, with exponent 2.
    """
    return float(np.mean(np.sum((first.astype(np.float64) - second) ** 2, axis=1)))


def uniformity(embeddings: FloatArray) -> float:
    """Return the log of the mean Gaussian potential over all pairs of rows.

    Uniformity says how evenly embeddings fill the sphere. It is 0 when all rows are the
    same point and about -4 when they fill a sphere of many dimensions. Its minimum is
    -8 (two opposite rows).

    Args:
        embeddings: embeddings [N, E], unit norm.

    Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.2.

    Raises:
        ValueError: there are fewer than two rows.
    """
    num_rows = len(embeddings)
    if num_rows < 2:
        raise ValueError(f"uniformity needs at least 2 embeddings, got {num_rows}")
    rows = embeddings.astype(np.float64)
    squares = np.sum(rows**2, axis=1)
    total = 0.0
    for first in range(0, num_rows, _ROWS_AT_A_TIME):
        part = slice(first, first + _ROWS_AT_A_TIME)
        distances = squares[part, np.newaxis] + squares - 2.0 * rows[part] @ rows.T
        # Rounding can make a distance of 0 slightly negative.
        total += float(np.exp(-UNIFORMITY_SCALE * np.maximum(distances, 0.0)).sum())
    # Leave out each row's pair with itself, which has potential 1.
    return math.log((total - num_rows) / (num_rows * (num_rows - 1)))


def effective_rank(rows: FloatArray) -> float:
    """Return in how many directions `rows` [N, D] vary, 0 to min(N - 1, D).

    The effective rank is exp(entropy) of the singular values, each divided by their
    sum. It equals k when rows vary equally in k directions, and it is less when some
    directions dominate. Rows are centred first, since a common mean distinguishes no
    rows. It is 0 when all rows are equal.

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective
    dimensionality", EUSIPCO, definition 1.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    # Drop singular values of the size of rounding errors. For equal rows they spread
    # over all directions and would look like full rank.
    scale = np.sqrt(np.mean(np.square(rows, dtype=np.float64)) * rows.size)
    values = values[values > _ROUNDING * scale]
    shares = values / values.sum() if values.size else values
    return float(np.exp(-(shares * np.log(shares)).sum())) if values.size else 0.0


def dimension_std(embeddings: FloatArray) -> FloatArray:
    """Return the standard deviation of each dimension of `embeddings` [N, E], [E]."""
    return embeddings.std(axis=0, dtype=np.float64)


def spread(embeddings: FloatArray) -> float:
    """Return how far `embeddings` [N, E] are spread, 0 to 1.

    The spread is the root of the summed variances of all dimensions: the root mean
    square of their standard deviations times sqrt(E). It is 0 for one point, and 1 for
    embeddings that are centred on the sphere.

    Source: Chen and He 2021 (SimSiam), arXiv 2011.10566, section 4.1: unit vectors that
    fill the sphere have a standard deviation of 1 / sqrt(E) per dimension, a collapsed
    output has 0.
    """
    return float(np.sqrt(np.sum(dimension_std(embeddings) ** 2)))


def spread_metrics(embeddings: FloatArray) -> dict[SpreadMeasure, float]:
    """Return all measures of the spread of `embeddings` [N, E], by name.

    `min_dimension_std` is the smallest standard deviation of a dimension, divided by 1
    / sqrt(E).
    """
    return {
        "uniformity": uniformity(embeddings),
        "effective_rank": effective_rank(embeddings),
        "spread": spread(embeddings),
        "min_dimension_std": float(
            dimension_std(embeddings).min() * math.sqrt(embeddings.shape[1])
        ),
    }


def least_effective_rank(min_effective_rank: float, embeddings: FloatArray) -> float:
    """Return the least effective rank to ask of `embeddings` [N, E].

    It is `min_effective_rank`, but at most half of what so few embeddings can reach.
    """
    return min(min_effective_rank, 0.5 * min(len(embeddings) - 1, embeddings.shape[1]))


def find_collapse(
    embeddings: FloatArray, *, min_spread: float, min_effective_rank: float
) -> str | None:
    """Return why `embeddings` [N, E] are collapsed, or None when they are not.

    Args:
        embeddings: unit-norm embeddings. A value that is not finite counts as a
            collapse.
        min_spread: least `spread`; lower means that all patches are one point.
        min_effective_rank: least `effective_rank`; lower means that all are on a line.
    """
    if not np.isfinite(embeddings).all():
        return "embeddings are not finite"
    value = spread(embeddings)
    if value < min_spread:
        return f"spread is {value:.3g}, at least {min_spread:.3g} is healthy"
    least = least_effective_rank(min_effective_rank, embeddings)
    rank = effective_rank(embeddings)
    return (
        f"effective_rank is {rank:.3g}, at least {least:.3g} is healthy" if rank < least else None
    )
