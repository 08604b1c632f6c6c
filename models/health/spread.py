"""Spread of embeddings: do they fill the sphere, or have they collapsed?

Input: unit-norm embeddings. Output: alignment, uniformity, effective rank, spread per
dimension, and the verdict. Called by `monitor.py` and the encoder's probe. NumPy only.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

UNIFORMITY_SCALE = 2.0
"""t of the Gaussian potential. Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.2."""

_ROWS_AT_A_TIME = 256
_ROUNDING = 1e-6
"""What a coordinate of a unit vector in float32 may be off by; spread below it is none."""


def alignment(first: FloatArray, second: FloatArray) -> float:
    """Mean squared distance of partners, 0 (the same point) to 4 (opposite); independent pairs have about 2.

    Args:
        first: unit norm, [N, E].
        second: unit norm, [N, E]; row i is the partner of row i of `first`.

    Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.1, with exponent 2.
    """
    return float(np.mean(np.sum((first.astype(np.float64) - second) ** 2, axis=1)))


def uniformity(embeddings: FloatArray) -> float:
    """Logarithm of the mean Gaussian potential over all pairs of rows of unit-norm `embeddings` [N, E], N at least 2.

    0 when all are the same point, about -4 when they fill the sphere of many
    dimensions; -8 at the least (two opposite rows).
    Source: Wang and Isola 2020, arXiv 2005.10242, section 4.1.2.

    Raises:
        ValueError: fewer than two rows.
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
        # Rounding may leave a distance of 0 slightly negative.
        total += float(np.exp(-UNIFORMITY_SCALE * np.maximum(distances, 0.0)).sum())
    # Each row has met itself once, with potential 1.
    return math.log((total - num_rows) / (num_rows * (num_rows - 1)))


def effective_rank(rows: FloatArray) -> float:
    """How many directions `rows` [N, D] vary in: exp of the entropy of the singular values' shares, 0 to min(N - 1, D).

    Of the centred rows: a mean that all share tells no row from another. 0 when all
    rows are equal.
    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective
    dimensionality", EUSIPCO, definition 1.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    # What rounding alone leaves of equal rows is spread over all directions and would
    # look like full rank.
    scale = np.sqrt(np.mean(np.square(rows, dtype=np.float64)) * rows.size)
    values = values[values > _ROUNDING * scale]
    shares = values / values.sum() if values.size else values
    return float(np.exp(-(shares * np.log(shares)).sum())) if values.size else 0.0


def dimension_std(embeddings: FloatArray) -> FloatArray:
    """Standard deviation per dimension, float64 [E], of `embeddings` [N, E]."""
    return embeddings.std(axis=0, dtype=np.float64)


def spread(embeddings: FloatArray) -> float:
    """Root mean square of the dimensions' standard deviations times sqrt(E): 0 (one point) to 1 (centred on the sphere).

    Source: Chen and He 2021 (SimSiam), arXiv 2011.10566, section 4.1: unit vectors that
    fill the sphere have 1 / sqrt(E) per dimension, a collapsed output has 0.
    """
    return float(np.sqrt(np.sum(dimension_std(embeddings) ** 2)))


def spread_metrics(embeddings: FloatArray) -> dict[str, float]:
    """`uniformity`, `effective_rank`, `spread`, and `min_dimension_std`, the least dimension's share of 1 / sqrt(E)."""
    return {
        "uniformity": uniformity(embeddings),
        "effective_rank": effective_rank(embeddings),
        "spread": spread(embeddings),
        "min_dimension_std": float(
            dimension_std(embeddings).min() * math.sqrt(embeddings.shape[1])
        ),
    }


def least_effective_rank(min_effective_rank: float, embeddings: FloatArray) -> float:
    """`min_effective_rank`, or half of what so few `embeddings` [N, E] could reach however healthy, if that is less."""
    return min(min_effective_rank, 0.5 * min(len(embeddings) - 1, embeddings.shape[1]))


def find_collapse(
    embeddings: FloatArray, *, min_spread: float, min_effective_rank: float
) -> str | None:
    """Why `embeddings` [N, E] are collapsed, in a few words; None when they are not.

    Args:
        embeddings: unit norm; a value that is not finite is a collapse, too.
        min_spread: least `spread`: below, all patches are one point.
        min_effective_rank: least `effective_rank`: below, all patches lie on a line.
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
