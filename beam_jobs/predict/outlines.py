"""Outlines: the areas of equal pixels as polygons, in pixels of a raster.

Input: rows of class ids, from top to bottom. Output: shapely polygons, whose corners
are corners of pixels: x = columns, y = rows. Pure functions. Memory holds the strip
that is read, and the polygons.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio import features

Polygons = npt.NDArray[np.object_]
"""Array [N] of polygons."""
_Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Class ids of rows of a raster.

    Attributes:
        first: number of the first row.
        ids: uint8 [H, W].
        is_last: whether no row follows.
    """

    first: int
    ids: npt.NDArray[np.uint8]
    is_last: bool


def trace(
    strips: Iterable[Strip], classes: Collection[int], min_area_px: float
) -> tuple[Polygons, npt.NDArray[np.int32]]:
    """Return the polygons of classes, and the class of each.

    A polygon is whole, however many strips it crosses, and keeps its holes. Pixels that
    touch at a corner only belong to two polygons.

    Args:
        strips: of the raster, without gaps.
        classes: ids of the wanted classes.
        min_area_px: smaller polygons are left out.
    """
    done: dict[int, list[Any]] = {value: [] for value in sorted(classes)}
    cut: dict[int, list[Any]] = {value: [] for value in done}
    for strip in strips:
        last = strip.first + len(strip.ids)
        for polygon, value in _of_strip(strip, classes):
            _, top, _, bottom = polygon.bounds
            if (top == strip.first and strip.first > 0) or (bottom == last and not strip.is_last):
                cut[value].append(polygon)
            elif polygon.area >= min_area_px:
                done[value].append(polygon)
    for value, pieces in cut.items():
        # Pieces that share an edge become one. Then the points where a strip ended go.
        merged = shapely.simplify(shapely.get_parts(shapely.union_all(pieces)), 0.0)
        done[value] += [one for one in merged if one.area >= min_area_px]
    values = [value for value, found in done.items() for _ in found]
    found = np.array([one for group in done.values() for one in group], dtype=object)
    return found, np.array(values, np.int32)


def _of_strip(strip: Strip, classes: Collection[int]) -> Iterator[tuple[Any, int]]:
    wanted = np.isin(strip.ids, list(classes))
    found = features.shapes(
        strip.ids, wanted, connectivity=4, transform=Affine.translation(0, strip.first)
    )
    for geometry, value in found:
        yield shapely.geometry.shape(geometry), int(value)


def simplified(polygons: Polygons, tolerance_px: float) -> Polygons:
    """Return polygons of `trace` with simpler outlines.

    No outline moves by more than the tolerance. Neighbours keep their common outline,
    so no gap opens between them, and outlines do not cross.

    Outlines are cut into arcs at the points where more than two meet. Each arc is
    simplified once, for both sides, with regard to all others. Arcs of an area that
    would shrink to a line stay as they are.

    Source: Douglas & Peucker 1973; GEOS TopologyPreservingSimplifier.
    """
    if not len(polygons):
        return polygons
    rings, owner = shapely.get_rings(polygons, return_index=True)
    arcs = _Arcs()
    used = [arcs.of_ring(*one) for one in _with_nodes(rings)]
    fixed: set[int] = set()
    while True:
        lines = arcs.simplified(tolerance_px, fixed)
        found, is_good = _polygons([_ring(lines, one) for one in used], owner, len(polygons))
        if is_good.all():
            return found
        fixed |= {
            number
            for one, at in zip(used, owner.tolist(), strict=True)
            if not is_good[at]
            for number, _ in one
        }


def _polygons(
    rings: list[npt.NDArray[np.float64]], owner: npt.NDArray[np.int64], number: int
) -> tuple[Polygons, npt.NDArray[np.bool_]]:
    """Return the polygons of rings, and which of them are valid.

    Args:
        rings: points of each, the last repeats the first. The first ring of a polygon
            is its outer one.
        owner: polygon of each ring, ascending.
        number: of polygons.
    """
    is_ring = np.array([len(one) >= 4 for one in rings])
    is_good = np.bincount(owner, ~is_ring, minlength=number) == 0
    chosen = np.flatnonzero(is_good[owner])
    found = np.empty(number, dtype=object)
    if len(chosen):
        points = np.concatenate([rings[at] for at in chosen])
        of_ring = np.repeat(np.arange(len(chosen)), [len(rings[at]) for at in chosen])
        places = np.flatnonzero(is_good)
        found[places] = shapely.polygons(
            shapely.linearrings(points, indices=of_ring),
            indices=np.searchsorted(places, owner[chosen]),
        )
        is_good[places] = shapely.is_valid(found[places]) & (shapely.area(found[places]) > 0)
    return found, is_good


def _with_nodes(rings: Polygons) -> Iterator[tuple[npt.NDArray[np.float64], _Keys, Any]]:
    """Yield the points of each ring, their keys, and which are nodes.

    The ring has a point at each corner of a pixel. Its first point is not repeated. A
    node is a point where more than two outlines meet.
    """
    dense, of_ring = shapely.get_coordinates(shapely.segmentize(rings, 1.0), return_index=True)
    points = np.rint(dense).astype(np.int64)
    width = int(points[:, 0].max()) + 2
    keys = points[:, 1] * width + points[:, 0]
    is_edge = of_ring[1:] == of_ring[:-1]
    edges = np.stack([keys[:-1][is_edge], keys[1:][is_edge]])
    edges = np.unique(np.sort(edges, axis=0), axis=1)
    met, num_met = np.unique(edges, return_counts=True)
    is_node = np.isin(keys, met[num_met > 2])
    starts = np.flatnonzero(np.r_[True, ~is_edge])
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        inside = slice(start, end - 1)
        yield points[inside].astype(np.float64), keys[inside], is_node[inside]


class _Arcs:
    """Arcs that are shared by the rings on both sides."""

    def __init__(self) -> None:
        self._number: dict[tuple[int, int], int] = {}
        self._points: list[npt.NDArray[np.float64]] = []

    def simplified(self, tolerance: float, fixed: Collection[int]) -> list[npt.NDArray[np.float64]]:
        """Return the points of all arcs, of which the `fixed` ones stay as they are."""
        free = [number for number in range(len(self._points)) if number not in fixed]
        lines = [self._points[number] for number in free]
        # A line of two points stays. So fixed arcs still hold the others off.
        for number in sorted(fixed):
            points = self._points[number]
            lines += list(np.stack([points[:-1], points[1:]], axis=1))
        of_line = np.repeat(np.arange(len(lines)), [len(one) for one in lines])
        simple = shapely.simplify(
            shapely.multilinestrings(shapely.linestrings(np.concatenate(lines), indices=of_line)),
            tolerance,
            preserve_topology=True,
        )
        found = list(self._points)
        points, of_line = shapely.get_coordinates(
            shapely.get_parts(simple)[: len(free)], return_index=True
        )
        ends = np.searchsorted(of_line, np.arange(len(free) + 1))
        for number, start, end in zip(free, ends, ends[1:], strict=False):
            found[number] = points[start:end]
        return found

    def of_ring(
        self, points: npt.NDArray[np.float64], keys: _Keys, is_node: npt.NDArray[np.bool_]
    ) -> list[tuple[int, bool]]:
        """Return the arcs of a ring: number, and whether it runs backwards."""
        nodes = np.flatnonzero(is_node)
        # Without a node, both sides begin at the same point.
        first = int(nodes[0]) if len(nodes) else int(keys.argmin())
        order = np.r_[first : len(keys), 0 : first + 1]
        points, keys = points[order], keys[order]
        ends = [*(nodes[1:] - first), len(keys) - 1] if len(nodes) else [len(keys) - 1]
        found, start = [], 0
        for end in ends:
            found.append(self._add(points[start : end + 1], keys[start : end + 1]))
            start = end
        return found

    def _add(self, points: npt.NDArray[np.float64], keys: _Keys) -> tuple[int, bool]:
        # An arc is known by its end and its first step, the smaller of both ends.
        ahead, back = (int(keys[0]), int(keys[1])), (int(keys[-1]), int(keys[-2]))
        name = min(ahead, back)
        if name not in self._number:
            self._number[name] = len(self._points)
            self._points.append(points if name == ahead else points[::-1])
        return self._number[name], name != ahead


def _ring(
    arcs: list[npt.NDArray[np.float64]], used: list[tuple[int, bool]]
) -> npt.NDArray[np.float64]:
    """Return the points of a ring that arcs make; the last repeats the first."""
    pieces = [(arcs[at][::-1] if is_backwards else arcs[at])[:-1] for at, is_backwards in used]
    return np.concatenate([*pieces, pieces[0][:1]])
