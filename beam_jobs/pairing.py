"""Pairing: which Sentinel-2 scene goes with a Sentinel-1 scene. Pure functions over footprints and times.

Input: checked scenes. Output: for each candidate its time gap and overlap; `transforms.py` groups scenes by cell and calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from shapely.geometry import shape

from beam_jobs.config import PairingConfig
from beam_jobs.scenes import Scene

CELL_DEGREES = 1.0
"""Side of the cells scenes are grouped by. A Sentinel-2 tile is about 1 degree wide."""


def cells(scene: Scene) -> Iterator[tuple[int, int]]:
    """The 1-degree cells (column, row) that a scene's footprint may touch."""
    xmin, ymin, xmax, ymax = shape(scene.footprint).bounds
    for column in range(math.floor(xmin / CELL_DEGREES), math.floor(xmax / CELL_DEGREES) + 1):
        for row in range(math.floor(ymin / CELL_DEGREES), math.floor(ymax / CELL_DEGREES) + 1):
            yield column, row


def time_gap_hours(s1: Scene, s2: Scene) -> float:
    """Sentinel-2 time minus Sentinel-1 time, hours."""
    return (s2.acquired_at - s1.acquired_at) / 3600.0


def overlap_fraction(s1: Scene, s2: Scene) -> float:
    """Share of the smaller footprint that both cover, 0-1, measured in lon/lat."""
    one, two = shape(s1.footprint), shape(s2.footprint)
    smaller = min(one.area, two.area)
    return float(one.intersection(two).area / smaller) if smaller > 0 else 0.0


def rank(s1: Scene, s2: Scene) -> tuple[float, float, str]:
    """Sort key of a candidate, best first: nearest in time, then most overlap, then smaller scene id.

    Overlap decides among the patches of a public data set that share one date: neighbours may overlap by half.
    """
    return abs(time_gap_hours(s1, s2)), -round(overlap_fraction(s1, s2), 6), s2.scene_id


def nearest(s1: Scene, s2_scenes: Iterable[Scene], config: PairingConfig) -> tuple[Scene | None, str]:
    """The Sentinel-2 scene to pair with `s1`, or None and why there is none.

    Among the scenes that overlap enough, the first by `rank`, which is never a tie, so that the choice does not depend on
    the order in which workers see them.
    """
    overlapping = [s2 for s2 in s2_scenes if overlap_fraction(s1, s2) >= config.min_overlap_fraction]
    if not overlapping:
        return None, f"no Sentinel-2 scene covers at least {config.min_overlap_fraction:g} of it"
    best = min(overlapping, key=lambda s2: rank(s1, s2))
    gap = time_gap_hours(s1, best)
    if abs(gap) > config.max_time_gap_hours:
        limit = f"max_time_gap_hours is {config.max_time_gap_hours:g}"
        return None, f"the nearest Sentinel-2 scene, {best.scene_id}, is {gap:+.1f} h away; {limit}"
    return best, ""
