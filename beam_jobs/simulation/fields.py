"""Random streams by name, and smooth random fields that are cheap at any size.

Input: seed, keys and sizes in pixels. Output: generators and rasters.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_SPLINE_GAIN = 0.479
"""Mean over a cell of the sum of squared cubic B-spline weights. It is the variance
that interpolation along one axis leaves, and so the standard deviation after two."""


def stream(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """Return the random generator of one purpose, for example of a scene's speckle.

    Each purpose has its own stream. One more draw for the nuisance therefore never
    moves a cloud or a speckle.

    Args:
        seed: the run's seed, 0 or above.
        purpose: name of what is drawn.
        keys: indices such as place and date, 0 or above.
    """
    # crc32, because Python's own hash of a text differs between processes. The keys go
    # into spawn_key, because a plain entropy list is padded with zeros: the stream of
    # place 0 would equal the stream without a place.
    return np.random.default_rng(
        np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *keys))
    )


def smooth_field(
    rng: np.random.Generator, size_px: int, scale_px: float
) -> npt.NDArray[np.float64]:
    """Return a Gaussian random field float64 [size_px, size_px].

    Its mean is 0, its standard deviation about 1, and it has no missing values. White
    noise on a grid of `scale_px` is interpolated by cubic B-splines. A Gaussian filter
    of that width at full resolution looks the same but costs many times more. Plain
    sums do not depend on the number of threads, as BLAS does.

    Args:
        rng: source of the noise.
        size_px: height and width.
        scale_px: distance over which values are alike, in pixels; at least 1.
    """
    num_nodes = int(np.ceil(size_px / scale_px)) + 4
    nodes = rng.standard_normal((num_nodes, num_nodes), dtype=np.float32)
    position = np.arange(size_px, dtype=np.float32) / np.float32(scale_px)
    first = position.astype(np.int64)
    weights = _spline_weights(position - first)
    rows = _interpolated(nodes, first, weights)
    columns = np.ascontiguousarray(rows.T)
    field = _interpolated(columns, first, weights)
    return np.ascontiguousarray(field.T) / np.float32(_SPLINE_GAIN)


def fractal_field(
    rng: np.random.Generator,
    size_px: int,
    scale_px: float,
    *,
    num_octaves: int,
    persistence: float = 0.5,
) -> FloatArray:
    """Return a sum of smooth fields at halving scales.

    Each field has half the scale of the one before and `persistence` times its height.

    Args:
        rng: source of the noise.
        size_px: height and width.
        scale_px: scale of the coarsest field, in pixels.
        num_octaves: number of fields; those finer than 1 px are left out.
        persistence: 0-1; low is smooth, high is rough.

    Returns:
        float32 [size_px, size_px], mean 0, standard deviation about 1, no missing
        values.
    """
    total = np.zeros((size_px, size_px), np.float32)
    power = 0.0
    for octave in range(num_octaves):
        scale, height = scale_px / 2**octave, persistence**octave
        if scale < 1.0:
            break
        total += np.float32(height) * smooth_field(rng, size_px, scale)
        power += height**2
    return total / np.float32(np.sqrt(power))


def _interpolated(
    nodes: npt.NDArray[Any], first: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return `nodes` [N, M] interpolated along axis 0, float64 [P, M].

    Args:
        nodes: values at the nodes.
        first: int64 [P], index of the first of the four nodes of each position.
        weights: float64 [4, P], weights of the four nodes.
    """
    result = np.zeros((len(first), nodes.shape[1]))
    for k in range(4):
        result += weights[k][:, None] * nodes[first + k]
    return result


def _spline_weights(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the four weights of the uniform cubic B-spline at `t` [P], float64 [4, P].

    `t` is the position between two nodes, 0-1. The weights of a position sum to 1.
    """
    return np.stack(
        [
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        ]
    )
