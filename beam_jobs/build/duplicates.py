"""Duplicates: patches of the same ground and passes; the worse one is rejected.

Input: references to finished patches. Output: the references that stay, and for each
other patch a CutResult that lists it and removes it from the sums. Sentinel-2 tiles
overlap by 10 km, and frames of a pass by less, on grids that need not be aligned. So a
duplicate shares more than half of its ground, not the same window. Patches of other
dates or other passes are not duplicates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from scipy.spatial import KDTree

from beam_jobs.build import spool
from beam_jobs.build.patches import Rejection
from beam_jobs.build.spool import PatchRef
from beam_jobs.config import BuildConfig
from beam_jobs.judging.overlaps import metres_per_degree
from beam_jobs.judging.pairing import SAME_PASS_SECONDS

DUPLICATE = "duplicate"
"""Tag of the output with CutResults of duplicates."""
SAME_GROUND_FRACTION = 0.5
"""Patches that share more than this part of their ground are duplicates.

The better one then shows most of what the other shows.
"""
_CELL_DEGREES = 0.25
_DAY_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class Group:
    """Patches that one worker compares: those of one cell of the globe on one day.

    Attributes:
        row: of the cell, in steps of latitude.
        column: of the cell, in steps of longitude.
        day: of the Sentinel-2 scene, days since 1970.
    """

    row: int
    column: int
    day: int


@dataclass
class RejectDuplicates(beam.PTransform):
    """PatchRefs -> those that stay; in DUPLICATE a CutResult for each of the others."""

    config: BuildConfig

    def expand(self, refs: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
        """Send each patch to all groups that may hold a duplicate; its home decides."""
        side_m = self.config.patch.size_px * self.config.patch.pixel_size_m
        return (
            refs
            | "KeyByPlace" >> beam.FlatMap(lambda ref: [(key, ref) for key in keys(ref, side_m)])
            | "GroupByPlace" >> beam.GroupByKey()
            | "Judge"
            >> beam.FlatMap(_judge, self.config, side_m).with_outputs(DUPLICATE, main="refs")
        )


def home(ref: PatchRef) -> Group:
    """Return the group that decides about a patch.

    It is the cell of the patch's centre, and the day of its Sentinel-2 scene.
    """
    return _group(ref.lat, ref.lon, ref.s2_acquired_at)


def keys(ref: PatchRef, side_m: float) -> Iterator[Group]:
    """Yield the home of a patch and of every patch that can be a duplicate of it."""
    north, east = metres_per_degree(ref.lat)
    # Add a tenth, since a degree of longitude is shorter at the far edge.
    reach_lat, reach_lon = 1.1 * side_m / north, min(1.1 * side_m / east, 180.0)
    places = itertools.product(
        (-reach_lat, 0.0, reach_lat), (-reach_lon, 0.0, reach_lon), (-1, 0, 1)
    )
    yield from {
        _group(ref.lat + lat, ref.lon + lon, ref.s2_acquired_at + step * SAME_PASS_SECONDS)
        for lat, lon, step in places
    }


def worse_ones(refs: list[PatchRef], side_m: float) -> dict[str, PatchRef]:
    """Return the id of each duplicate of a better patch -> the best of its duplicates.

    The higher score is better, in steps of 0.1, so that one tile tends to win as a
    whole. In a tie, the pair with the smaller hash is better. Each patch is compared
    with all others, rejected ones too, so the result depends neither on order nor on
    workers.

    Args:
        refs: patches within a cell or beside it.
        side_m: side of a patch.
    """
    # Fast path for most groups: patches of one pair lie side by side.
    if len({ref.pair for ref in refs}) < 2:
        return {}
    north, east = metres_per_degree(refs[0].lat)
    lon = (np.array([ref.lon for ref in refs]) - refs[0].lon + 180.0) % 360.0 - 180.0
    centres = np.column_stack([np.array([ref.lat for ref in refs]) * north, lon * east])
    worse: dict[str, PatchRef] = {}
    for i, j in KDTree(centres).query_pairs(side_m, p=math.inf):
        shared = np.prod(side_m - np.abs(centres[i] - centres[j])) / side_m**2
        if shared > SAME_GROUND_FRACTION and _of_the_same_passes(refs[i], refs[j]):
            better, other = sorted((refs[i], refs[j]), key=_rank)
            worse[other.patch_id] = min(worse.get(other.patch_id, better), better, key=_rank)
    return worse


def _judge(
    group: tuple[Group, Iterable[PatchRef]], config: BuildConfig, side_m: float
) -> Iterator[object]:
    key, refs = group[0], sorted(group[1], key=lambda ref: (ref.pair, ref.patch_id))
    worse = worse_ones(refs, side_m)
    for ref in refs:
        if home(ref) != key:
            continue
        better = worse.get(ref.patch_id)
        if better is None:
            yield ref
            continue
        result = spool.uncounted(ref, config)
        detail = (
            f"shows the ground of {better.patch_id} by the same passes; "
            f"scores {ref.quality:.3f}, {better.quality:.3f}"
        )
        result.rejections = [
            Rejection(kind="patches", id=ref.patch_id, reason="duplicate_patch", detail=detail)
        ]
        yield beam.pvalue.TaggedOutput(DUPLICATE, result)


def _rank(ref: PatchRef) -> tuple[float, str, str]:
    return -round(ref.quality, 1), ref.pair, ref.patch_id


def _of_the_same_passes(one: PatchRef, two: PatchRef) -> bool:
    return (
        one.pair != two.pair
        and abs(one.s1_acquired_at - two.s1_acquired_at) <= SAME_PASS_SECONDS
        and abs(one.s2_acquired_at - two.s2_acquired_at) <= SAME_PASS_SECONDS
    )


def _group(lat: float, lon: float, acquired_at: int) -> Group:
    return Group(
        row=math.floor(lat / _CELL_DEGREES),
        column=math.floor(((lon + 180.0) % 360.0) / _CELL_DEGREES),
        day=acquired_at // _DAY_SECONDS,
    )
