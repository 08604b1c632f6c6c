"""Spacing: keeps points on the sphere a least distance apart, for a million of them.

Input: unit vectors, one after the other. Output: which earlier point is too near, if
any. Called by `sampling.py`.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.sphere import EARTH_RADIUS_KM

_MIN_CELL = 1e-6
"""Of the unit sphere, 6 m: smaller cubes would not count in 64 bits."""
_NEIGHBOURS = tuple((i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1))


class Spacing:
    """Points so far, in a grid of cubes around the sphere whose side is the least distance.

    A point's neighbours lie in its own cube or one of the 26 around it. A cube is one
    number, so that a million points take some 200 MB.
    """

    def __init__(self, min_distance_km: float) -> None:
        self._chord = 2 * math.sin(min(min_distance_km / (2 * EARTH_RADIUS_KM), math.pi / 2))
        self._cell = max(self._chord, _MIN_CELL)
        self._per_axis = math.ceil(2 / self._cell) + 3
        steps = [(i * self._per_axis + j) * self._per_axis + k for i, j, k in _NEIGHBOURS]
        self._steps = sorted(steps, key=abs)
        self._cubes: dict[int, list[int] | int] = {}
        self._points = array("d")

    def cubes(self, points: npt.NDArray[np.float64]) -> list[int]:
        """The cube of each unit vector of [N, 3]."""
        i, j, k = (np.floor((points + 1.0) / self._cell).astype(np.int64) + 1).T
        return ((i * self._per_axis + j) * self._per_axis + k).tolist()

    def nearest_conflict(self, point: Sequence[float], cube: int) -> int | None:
        """Number of a point (in the order they were added) nearer than the least distance; None when there is none."""
        x, y, z = point
        for step in self._steps:
            found = self._cubes.get(cube + step)
            if found is None:
                continue
            for number in (found,) if isinstance(found, int) else found:
                x0, y0, z0 = self._points[3 * number : 3 * number + 3]
                squared = (x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2
                # At distance 0 only the very same point is in the way.
                if squared < self._chord * self._chord or squared == 0.0:
                    return number
        return None

    def add(self, point: Sequence[float], cube: int) -> None:
        """Takes the point in."""
        number = len(self._points) // 3
        self._points.extend(point)
        held = self._cubes.get(cube)
        if held is None:
            # Nearly every cube holds one point: a bare number is much smaller than a
            # list.
            self._cubes[cube] = number
        elif isinstance(held, int):
            self._cubes[cube] = [held, number]
        else:
            held.append(number)
