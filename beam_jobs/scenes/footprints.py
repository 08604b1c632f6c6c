"""Footprints: polygons on the globe, cut at the antimeridian, so that bounds, cells and overlaps are right there too.

Input: GeoJSON geometries as catalogs write them, or bounds in a CRS. Output: shapely
geometries whose longitudes lie within -180 to 180. Pure; pairing and readers compare
footprints through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon, box, shape

from beam_jobs.scenes.grids import Bounds, lonlat_bounds


def on_globe(geometry: Mapping[str, Any] | shapely.Geometry) -> shapely.Geometry:
    """The polygons of a geometry, valid, with longitudes within -180 to 180.

    A scene over the antimeridian may be written in three ways, and all give the same
    two parts: split as RFC 7946 (section 3.1.9) wants it, with longitudes beyond 180,
    or as one ring that jumps from 179 to -179. No scene is wider than 180 degrees, so a
    longer edge is such a jump. A ring around a pole, where neither sensor's mode of
    interest looks, is not understood.
    """
    given = shape(geometry) if isinstance(geometry, Mapping) else geometry
    parts = [piece for polygon in _polygons(given) for piece in _split(polygon)]
    if len(parts) == 1:
        return parts[0]
    return shapely.union_all(parts) if parts else Polygon()


def of_bounds(crs: str, bounds: Bounds) -> shapely.Geometry:
    """The lon/lat box around bounds in `crs`; two boxes when they reach over the antimeridian."""
    return on_globe(box(*lonlat_bounds(crs, bounds)))


def overlap_fractions(ones: Any, others: Any) -> Any:
    """Share of the smaller of two geometries that both cover, 0-1, element by element of two arrays of geometries.

    Measured in degrees: as a ratio it needs no equal areas, since two scenes that meet
    lie at one latitude; over a footprint of 2 degrees at 60 degrees north, northern and
    southern parts count 6 % differently.
    """
    smaller = np.minimum(shapely.area(ones), shapely.area(others))
    common = shapely.area(shapely.intersection(ones, others))
    return np.divide(common, smaller, out=np.zeros_like(smaller), where=smaller > 0)


def _polygons(geometry: shapely.Geometry) -> list[Polygon]:
    parts = shapely.get_parts(shapely.get_parts([geometry]))
    return [part for part in parts if isinstance(part, Polygon) and not part.is_empty]


def _split(polygon: Polygon) -> list[Polygon]:
    coordinates = shapely.get_coordinates(polygon.exterior)
    lon = coordinates[:, 0]
    unwrapped = np.unwrap(lon, period=360.0)
    if np.array_equal(unwrapped, lon) and lon.min() >= -180.0 and lon.max() <= 180.0:
        return _polygons(shapely.make_valid(polygon))
    # Holes are left out: a footprint over the antimeridian that has one was never seen.
    whole = shapely.make_valid(Polygon(np.column_stack([unwrapped, coordinates[:, 1]])))
    pieces = []
    for turn in (-360.0, 0.0, 360.0):
        inside = shapely.intersection(whole, box(-180.0 + turn, -90.0, 180.0 + turn, 90.0))
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - (turn, 0.0))
        pieces += _polygons(moved)
    return pieces
