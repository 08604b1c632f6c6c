"""Pairing: which Sentinel-2 scenes go with a Sentinel-1 scene. Pure functions.

Input: Outlines of scenes. Output: ranked Candidates. Scenes are joined by cell of 1
degree and by time bucket: `keys` gives the groups of an outline, and `join` compares
the scenes of one group. A group holds the scenes of one cell and one bucket, so no
worker holds a region's whole history. Within a group, an R-tree finds which footprints
intersect.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely

from beam_jobs.config import PairingConfig
from beam_jobs.contracts.bands import Sensor
from beam_jobs.scenes import footprints
from beam_jobs.scenes.scene import Scene

CELL_DEGREES = 1.0
"""Side of the cells by which scenes are grouped; a Sentinel-2 tile is as wide."""
MIN_BUCKET_SECONDS = 30 * 86_400
"""Least length of a time bucket.

A month of one cell holds some dozen scenes. In shorter buckets, grouping would cost
more than joining.
"""
SAME_PASS_SECONDS = 300
"""Scenes of one sensor that are less than this apart belong to one pass.

A frame or tile follows the next within half a minute. The next pass over the same
ground comes an orbit later, after 98 minutes.

Source: ESA, Sentinel-1 and Sentinel-2 mission guides.
"""

Cell = tuple[int, int]
"""Column and row, in steps of CELL_DEGREES."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Scenes that are compared with each other: those of one cell and one time bucket.

    Attributes:
        cell: column and row of the cell.
        bucket: number of the time bucket, counted from 1970.
    """

    cell: Cell
    bucket: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """The little that pairing needs to know of a scene: some hundred bytes.

    Attributes:
        scene_id: of the scene.
        sensor: "s1" or "s2".
        acquired_at: seconds since 1970, UTC.
        wkb: footprint on the globe (see `footprints.on_globe`) as well-known binary.
    """

    scene_id: str
    sensor: Sensor
    acquired_at: int
    wkb: bytes


class Candidate(NamedTuple):
    """A Sentinel-2 scene that overlaps a Sentinel-1 scene enough; the best sorts first.

    The overlap decides among patches of a public data set that share one date, where
    neighbours may overlap by half. The id comes next, so there is never a tie, and the
    choice does not depend on the order of scenes.

    Attributes:
        abs_gap_seconds: absolute time gap.
        minus_overlap: negative share of the smaller footprint that both cover.
        s2_id: id of the Sentinel-2 scene.
        gap_seconds: Sentinel-2 time minus Sentinel-1 time.
    """

    abs_gap_seconds: int
    minus_overlap: float
    s2_id: str
    gap_seconds: int


def outline(scene: Scene) -> Outline:
    """Return the outline of a scene."""
    wkb = shapely.to_wkb(footprints.on_globe(scene.footprint))
    return Outline(
        scene_id=scene.scene_id, sensor=scene.sensor, acquired_at=scene.acquired_at, wkb=wkb
    )


def cells(footprint: shapely.Geometry) -> Iterator[Cell]:
    """Return the 1-degree cells (column, row) that a footprint may touch."""
    found = set()
    for part in shapely.get_parts(footprint):
        west, south, east, north = (math.floor(value / CELL_DEGREES) for value in part.bounds)
        found |= set(itertools.product(range(west, east + 1), range(south, north + 1)))
    return iter(found)


def keys(scene: Outline, config: PairingConfig) -> Iterator[Group]:
    """Yield the groups in which a scene takes part.

    A Sentinel-1 scene takes part in the bucket of its time. A Sentinel-2 scene takes
    part in every bucket within the largest time gap.
    """
    reach = math.ceil(config.max_time_gap_hours * 3600.0)
    # Whole seconds, so that rounding cannot separate two scenes.
    length = max(reach, MIN_BUCKET_SECONDS)
    if scene.sensor == "s1":
        reach = 0
    buckets = range(
        (scene.acquired_at - reach) // length, (scene.acquired_at + reach) // length + 1
    )
    for cell, bucket in itertools.product(cells(shapely.from_wkb(scene.wkb)), buckets):
        yield Group(cell=cell, bucket=bucket)


def join(
    group: Group, scenes: Iterable[Outline], config: PairingConfig
) -> Iterator[tuple[str, Candidate]]:
    """Yield (Sentinel-1 id, candidate) for all scenes of a group that may be paired.

    Their footprints overlap enough, and they are not further apart in time than
    allowed. A pair meets in every cell that both touch; only the first of these cells
    yields it. A Sentinel-1 scene without such a partner yields the nearest one that is
    too far in time, if this group has one, so that its rejection can name it.
    """
    s1 = [scene for scene in scenes if scene.sensor == "s1"]
    s2 = [scene for scene in scenes if scene.sensor == "s2"]
    if not s1 or not s2:
        return
    shapes = [np.array(shapely.from_wkb([scene.wkb for scene in part])) for part in (s1, s2)]
    cells_of = [[frozenset(cells(footprint)) for footprint in part] for part in shapes]
    one, two = shapely.STRtree(shapes[1]).query(shapes[0], predicate="intersects")
    gaps = _times(s2)[two] - _times(s1)[one]
    near = np.abs(gaps) <= config.max_time_gap_hours * 3600.0
    # Two thirds of all candidates are too far in time. Compute their overlap only for
    # scenes that have nothing nearer.
    lonely = ~np.isin(one, one[near])
    for chosen, is_last_resort in ((near, False), (lonely, True)):
        rows, columns = one[chosen], two[chosen]
        overlaps = footprints.overlap_fractions(shapes[0][rows], shapes[1][columns])
        found: dict[int, Candidate] = {}
        for i in np.flatnonzero(overlaps >= config.min_overlap_fraction):
            row, column, gap = int(rows[i]), int(columns[i]), int(gaps[chosen][i])
            candidate = Candidate(abs(gap), -round(float(overlaps[i]), 6), s2[column].scene_id, gap)
            if is_last_resort:
                found[row] = min(found.get(row, candidate), candidate)
            elif min(cells_of[0][row] & cells_of[1][column]) == group.cell:
                yield s1[row].scene_id, candidate
        yield from ((s1[row].scene_id, candidate) for row, candidate in found.items())


def choose(candidates: Iterable[Candidate], config: PairingConfig) -> tuple[list[Candidate], str]:
    """Return the best candidates of a Sentinel-1 scene, or why there is none.

    Args:
        candidates: of one Sentinel-1 scene, from all groups.
        config: of pairing.

    Returns:
        (at most `max_s2_per_s1` candidates, ""), or ([], why there is none).
    """
    ranked = sorted(candidates)
    limit = f"max_time_gap_hours is {config.max_time_gap_hours:g}"
    if not ranked:
        return (
            [],
            f"no Sentinel-2 scene near it in time ({limit}) "
            f"covers at least {config.min_overlap_fraction:g} of it",
        )
    chosen = [c for c in ranked if c.abs_gap_seconds <= config.max_time_gap_hours * 3600.0][
        : config.max_s2_per_s1
    ]
    hours = ranked[0].gap_seconds / 3600.0
    nearest = f"the Sentinel-2 scene {ranked[0].s2_id} is {hours:+.1f} h away; {limit}"
    return chosen, "" if chosen else nearest


def nearest_passes(
    s2: Scene, s1_scenes: Iterable[Scene], config: PairingConfig
) -> tuple[list[Scene], list[Scene]]:
    """Return (kept, left out) of the Sentinel-1 scenes that chose `s2`.

    The `max_s1_per_s2` best passes are kept. The best is the nearest in time. Of two
    equally near passes, `orbit_preference` decides, then the smaller relative orbit, so
    that the same track is chosen at all dates of a place. Frames of one pass count as
    one pass, since each shows other ground.
    """
    ranked = sorted(s1_scenes, key=lambda s1: _pass_rank(s1, s2, config))
    if config.max_s1_per_s2 is None:
        return ranked, []
    passes: list[int] = []
    kept, left_out = [], []
    for s1 in ranked:
        is_known = any(abs(s1.acquired_at - known) <= SAME_PASS_SECONDS for known in passes)
        if not is_known and len(passes) == config.max_s1_per_s2:
            left_out.append(s1)
            continue
        if not is_known:
            passes.append(s1.acquired_at)
        kept.append(s1)
    return kept, left_out


def time_gap_hours(s1: Scene, s2: Scene) -> float:
    """Return Sentinel-2 time minus Sentinel-1 time, in hours."""
    return (s2.acquired_at - s1.acquired_at) / 3600.0


def _pass_rank(s1: Scene, s2: Scene, config: PairingConfig) -> tuple[int, bool, float, str]:
    is_other = config.orbit_preference not in ("any", s1.orbit_state)
    orbit = math.inf if s1.relative_orbit is None else s1.relative_orbit
    return abs(s2.acquired_at - s1.acquired_at), is_other, orbit, s1.scene_id


def _times(scenes: list[Outline]) -> npt.NDArray[np.int64]:
    return np.array([scene.acquired_at for scene in scenes], np.int64)
