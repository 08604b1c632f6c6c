"""Outlines: the areas of equal pixels as polygons, in pixels of a raster.

Input: rows of class ids, from top to bottom. Output: shapely polygons, whose corners
are corners of pixels: x = columns, y = rows. Pure functions. Memory holds the strip
that is read, and the polygons.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio import Affine, features

Polygons = npt.NDArray[np.object_]
"""Array [N] of polygons."""
_MAX_EDGES = 64
"""Most edges of pixels in a piece of an outline that is simplified by itself."""
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

    Outlines are cut into pieces, at the points where more than two meet and after
    _MAX_EDGES edges. Each piece is simplified once, for both sides. Pieces that then
    cross or touch others stay as they are.

    Source: Douglas & Peucker 1973, Algorithms for the reduction of the number of points
    required to represent a digitized line or its caricature.
    """
    if not len(polygons):
        return polygons
    rings, owner = shapely.get_rings(polygons, return_index=True)
    pieces = _Pieces()
    used = [pieces.of_ring(*one) for one in _with_nodes(rings)]
    lines = pieces.lines()
    is_fixed = np.zeros(len(lines), bool)
    while True:
        simple = shapely.simplify(
            lines, np.where(is_fixed, 0.0, tolerance_px), preserve_topology=False
        )
        is_bad = _conflicts(simple)
        if not is_bad.any():
            found, is_good = _polygons(_rings(simple, used), owner, len(polygons))
            if is_good.all():
                return found
            for at in np.flatnonzero(~is_good[owner]):
                is_bad[[number for number, _ in used[at]]] = True
        if not (is_bad & ~is_fixed).any():
            return polygons
        is_fixed |= is_bad


def _conflicts(lines: Any) -> npt.NDArray[np.bool_]:
    """Return which lines cross themselves, or meet others not at their ends only."""
    is_bad = ~shapely.is_simple(lines)
    ones, others = shapely.STRtree(lines).query(lines, predicate="intersects")
    is_pair = ones < others
    ones, others = ones[is_pair], others[is_pair]
    meets = ~shapely.touches(lines[ones], lines[others])
    is_bad[ones[meets]] = is_bad[others[meets]] = True
    return is_bad


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
    # Each edge once, from its smaller end: to the right is even, down is odd.
    one, two = keys[:-1][is_edge], keys[1:][is_edge]
    edges = np.unique(2 * np.minimum(one, two) + (np.abs(one - two) > 1))
    ends = np.concatenate([edges // 2, edges // 2 + np.where(edges % 2, width, 1)])
    met, num_met = np.unique(ends, return_counts=True)
    is_node = num_met[np.searchsorted(met, keys)] > 2
    starts = np.flatnonzero(np.r_[True, ~is_edge])
    for start, end in zip(starts, [*starts[1:], len(keys)], strict=True):
        inside = slice(start, end - 1)
        yield points[inside].astype(np.float64), keys[inside], is_node[inside]


class _Pieces:
    """Pieces of outlines that the rings on both sides share."""

    def __init__(self) -> None:
        self._of_arc: dict[tuple[int, int], range] = {}
        self._points: list[npt.NDArray[np.float64]] = []

    def lines(self) -> Any:
        """Return the pieces, by their numbers."""
        of_line = np.repeat(np.arange(len(self._points)), [len(one) for one in self._points])
        return shapely.linestrings(np.concatenate(self._points), indices=of_line)

    def of_ring(
        self, points: npt.NDArray[np.float64], keys: _Keys, is_node: npt.NDArray[np.bool_]
    ) -> list[tuple[int, bool]]:
        """Return the pieces of a ring: number, and whether it runs backwards."""
        nodes = np.flatnonzero(is_node)
        # Without a node, both sides begin at the same point.
        first = int(nodes[0]) if len(nodes) else int(keys.argmin())
        order = np.r_[first : len(keys), 0 : first + 1]
        points, keys = points[order], keys[order]
        ends = [*(nodes[1:] - first), len(keys) - 1] if len(nodes) else [len(keys) - 1]
        found, start = [], 0
        for end in ends:
            found += self._add(points[start : end + 1], keys[start : end + 1])
            start = end
        return found

    def _add(self, points: npt.NDArray[np.float64], keys: _Keys) -> list[tuple[int, bool]]:
        """Return the pieces of an arc between two nodes, and keep a new one."""
        # An arc is known by its end and its first step, the smaller of both ends.
        ahead, back = (int(keys[0]), int(keys[1])), (int(keys[-1]), int(keys[-2]))
        name = min(ahead, back)
        if name not in self._of_arc:
            along = points if name == ahead else points[::-1]
            # An arc that ends where it begins has two pieces at least.
            least = 2 if keys[0] == keys[-1] else 1
            number = max(least, -(-(len(along) - 1) // _MAX_EDGES))
            cuts = np.linspace(0, len(along) - 1, number + 1).round().astype(int)
            self._of_arc[name] = range(len(self._points), len(self._points) + number)
            self._points += [along[a : b + 1] for a, b in itertools.pairwise(cuts)]
        if name == ahead:
            return [(number, False) for number in self._of_arc[name]]
        return [(number, True) for number in reversed(self._of_arc[name])]


def _rings(lines: Any, used: list[list[tuple[int, bool]]]) -> list[npt.NDArray[np.float64]]:
    """Return the points of rings that pieces make; the last repeats the first."""
    points, of_line = shapely.get_coordinates(lines, return_index=True)
    starts = np.searchsorted(of_line, np.arange(len(lines) + 1))
    found = []
    for pieces in used:
        parts = []
        for number, is_backwards in pieces:
            part = points[starts[number] : starts[number + 1]]
            parts.append((part[::-1] if is_backwards else part)[:-1])
        found.append(np.concatenate([*parts, parts[0][:1]]))
    return found
