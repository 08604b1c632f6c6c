"""Spacing: keep points on the sphere a least distance apart.

Input: unit vectors, one after the other. Output: the earlier point that is too close,
if there is one. It works for a million points.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.sphere import EARTH_RADIUS_KM

_MIN_CELL = 1e-6
"""Side of the smallest cube on the unit sphere, 6 m; numbers of smaller cubes would not
fit into 64 bits."""
_NEIGHBOURS = tuple((i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1))


class Spacing:
    """The points so far, in a grid of cubes around the sphere.

    The side of a cube is the least distance, so a point's neighbours lie in its own
    cube or in one of the 26 around it. A cube is one number, so a million points take
    about 200 MB.
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
        """Return the number of the cube of each unit vector of [N, 3]."""
        i, j, k = (np.floor((points + 1.0) / self._cell).astype(np.int64) + 1).T
        return ((i * self._per_axis + j) * self._per_axis + k).tolist()

    def nearest_conflict(self, point: Sequence[float], cube: int) -> int | None:
        """Return the number of a point that is closer than the least distance.

        Points are numbered in the order in which they were added. Returns None if there
        is no such point.
        """
        x, y, z = point
        for step in self._steps:
            found = self._cubes.get(cube + step)
            if found is None:
                continue
            for number in (found,) if isinstance(found, int) else found:
                x0, y0, z0 = self._points[3 * number : 3 * number + 3]
                squared = (x - x0) ** 2 + (y - y0) ** 2 + (z - z0) ** 2
                # With a least distance of 0, only the very same point conflicts.
                if squared < self._chord * self._chord or squared == 0.0:
                    return number
        return None

    def add(self, point: Sequence[float], cube: int) -> None:
        """Add a point."""
        number = len(self._points) // 3
        self._points.extend(point)
        held = self._cubes.get(cube)
        if held is None:
            # Nearly every cube holds one point, and a bare number is much smaller than
            # a list.
            self._cubes[cube] = number
        elif isinstance(held, int):
            self._cubes[cube] = [held, number]
        else:
            held.append(number)
