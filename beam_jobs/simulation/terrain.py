"""Terrain of a place: height above normal water level.

Input: a random stream and the size. Output: `Terrain` with a river, lakes and, on some
places, a coast. Comparing it with a water level gives the water of a date.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from beam_jobs.simulation.fields import FloatArray, fractal_field

BoolArray = npt.NDArray[np.bool_]

COAST_PROBABILITY = 0.3
_NUM_ROUTE_NODES = 40


@dataclass(frozen=True, kw_only=True)
class Terrain:
    """Ground of a place.

    Attributes:
        height_m: float32 [H, W], metres above the normal water level of the nearest
            river or sea; below 0 is the bed of permanent water. No missing values.
        coast_distance_px: float32 [H, W], pixels inland from the coast line; large
            where there is no coast.
    """

    height_m: FloatArray
    coast_distance_px: FloatArray

    def water_mask(self, level_m: float) -> BoolArray:
        """Return bool [H, W], True where the ground lies below `level_m` (metres)."""
        return self.height_m < level_m

    def level_for_flood_m(self, flooded_fraction: float) -> float:
        """Return the water level in metres that floods a share of the dry ground.

        Args:
            flooded_fraction: 0-1, share of the normally dry ground; 0 gives level 0.
        """
        dry_m = self.height_m[::2, ::2]
        return (
            float(np.quantile(dry_m[dry_m >= 0.0], flooded_fraction))
            if flooded_fraction > 0
            else 0.0
        )


def make_terrain(rng: np.random.Generator, size_px: int) -> Terrain:
    """Draw the terrain of a place of `size_px` pixels a side."""
    relief = fractal_field(rng, size_px, min(150.0, size_px / 2.5), num_octaves=5, persistence=0.45)
    lake_share = rng.uniform(0.005, 0.03)
    # The lowest share of the relief becomes lakes; the rest becomes hills of tens of
    # metres.
    height_m = (relief - np.float32(np.quantile(relief[::4, ::4], lake_share))) * np.float32(
        rng.uniform(6.0, 14.0)
    )
    distance_px = _distance_to_route(_route(rng, relief), size_px)
    scale = min(1.0, size_px / 256)
    half_width_px = rng.uniform(2.0, 6.5) * max(scale, 0.5)
    valley_px = rng.uniform(25.0, 60.0) * scale
    floor = 1.0 - np.float32(0.85) * np.exp(-((distance_px / np.float32(valley_px)) ** 2))
    # Banks of half a metre keep a river in its bed at normal level, even where it
    # crosses a basin.
    height_m = np.maximum(height_m, np.float32(-1.5)) * floor
    bank_m = np.clip((distance_px - np.float32(half_width_px)) * np.float32(0.8), -4.0, 0.5)
    height_m = np.where(distance_px < half_width_px + 1.0, np.minimum(height_m, bank_m), height_m)
    coast_px = np.full((size_px, size_px), 1e6, np.float32)
    if rng.random() < COAST_PROBABILITY:
        coast_px = _coast_distance(rng, size_px)
        height_m = np.minimum(height_m, coast_px * np.float32(rng.uniform(0.06, 0.2)))
    height_m += np.float32(0.12) * fractal_field(rng, size_px, 8.0, num_octaves=2)
    return Terrain(height_m=height_m.astype(np.float32), coast_distance_px=coast_px)


def slope_east(height_m: FloatArray, pixel_size_m: float) -> FloatArray:
    """Return the rise towards east in metres per metre, float32 [H, W].

    Where it is above 0, the slope faces west.
    """
    return np.gradient(height_m, pixel_size_m, axis=1).astype(np.float32)


def _route(rng: np.random.Generator, relief: FloatArray) -> npt.NDArray[np.float64]:
    """Return the course of the river, [N, 2] rows and columns in pixels.

    It is the cheapest path between two opposite edges, so it keeps to low ground.
    """
    size_px, n = relief.shape[0], _NUM_ROUTE_NODES
    pick = np.linspace(0, size_px - 1, n).astype(int)
    # Lognormal noise makes the river wind where the ground alone would let it run
    # straight.
    cost = np.exp(1.1 * relief[np.ix_(pick, pick)] + 0.6 * rng.standard_normal((n, n)))
    start, end = _edge_nodes(rng, n)
    path = _cheapest_path(cost, start, end)
    rows_columns = np.stack(np.divmod(np.array(path), n), axis=1) * (size_px - 1) / (n - 1)
    smooth = ndimage.gaussian_filter1d(rows_columns, 1.6, axis=0, mode="nearest")
    # Smoothing pulls the ends inwards; put the first and last node back on the edge.
    smooth[[0, -1]] = rows_columns[[0, -1]]
    steps = np.linspace(0, len(smooth) - 1, 4 * size_px)
    return np.stack(
        [np.interp(steps, np.arange(len(smooth)), smooth[:, axis]) for axis in (0, 1)], axis=1
    )


def _edge_nodes(rng: np.random.Generator, n: int) -> tuple[int, int]:
    """Return flat indices of a node on one edge and one on the opposite edge."""
    first, last = (int(i) for i in rng.integers(n // 6, n - n // 6, 2))
    if rng.random() < 0.5:
        return first, (n - 1) * n + last
    return first * n, last * n + n - 1


def _cheapest_path(cost: npt.NDArray[np.float64], start: int, end: int) -> list[int]:
    """Return flat node indices from `start` to `end` over the 8-neighbour grid."""
    n = cost.shape[0]
    index = np.arange(n * n).reshape(n, n)
    sources, targets, weights = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        a = index[: n - down, max(0, -right) : n - max(0, right)]
        b = index[down:, max(0, right) : n - max(0, -right)]
        sources.append(a.ravel())
        targets.append(b.ravel())
        weights.append((cost.ravel()[a] + cost.ravel()[b]).ravel() * np.hypot(down, right) / 2)
    graph = sparse.coo_matrix(
        (np.concatenate(weights), (np.concatenate(sources), np.concatenate(targets))),
        shape=(n * n, n * n),
    ).tocsr()
    _, predecessors = csgraph.dijkstra(
        graph, directed=False, indices=start, return_predecessors=True
    )
    path = [end]
    while path[-1] != start:
        path.append(int(predecessors[path[-1]]))
    return path[::-1]


def _distance_to_route(route: npt.NDArray[np.float64], size_px: int) -> FloatArray:
    """Return each pixel's distance to the route in pixels, float32 [H, W]."""
    away = np.ones((size_px, size_px), bool)
    rows, columns = np.clip(np.rint(route).astype(int), 0, size_px - 1).T
    away[rows, columns] = False
    return ndimage.distance_transform_edt(away).astype(np.float32)


def _coast_distance(rng: np.random.Generator, size_px: int) -> FloatArray:
    """Return the signed distance inland from a ragged coast line along one side.

    The unit is pixels, float32 [H, W].
    """
    angle = rng.uniform(0.0, 2 * np.pi)
    rows, columns = np.indices((size_px, size_px), dtype=np.float32) - np.float32((size_px - 1) / 2)
    along = rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))
    ragged = fractal_field(rng, size_px, size_px / 3, num_octaves=5, persistence=0.5)
    return (
        along + np.float32(size_px * rng.uniform(0.2, 0.38)) + ragged * np.float32(0.07 * size_px)
    )
