"""Footprints: polygons on the globe, cut at the antimeridian.

Input: GeoJSON geometries of catalogs, or bounds in a CRS. Output: shapely geometries
with longitudes within -180 to 180, so that bounds, cells and overlaps are right at the
antimeridian too. Pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon, box, shape

from beam_jobs.scenes.grids import Bounds, lonlat_bounds


def on_globe(geometry: Mapping[str, Any] | shapely.Geometry) -> shapely.Geometry:
    """Return the valid polygons of a geometry, with longitudes within -180 to 180.

    A scene over the antimeridian may be written in three ways: split in two parts (RFC
    7946, section 3.1.9), with longitudes beyond 180, or as one ring that jumps from 179
    to -179. All three give the same two parts. No scene is wider than 180 degrees, so a
    longer edge is such a jump. A ring around a pole is not supported: neither sensor
    looks there in the modes used here.
    """
    given = shape(geometry) if isinstance(geometry, Mapping) else geometry
    parts = [piece for polygon in _polygons(given) for piece in _split(polygon)]
    if len(parts) == 1:
        return parts[0]
    return shapely.union_all(parts) if parts else Polygon()


def of_bounds(crs: str, bounds: Bounds) -> shapely.Geometry:
    """Return the lon/lat box around `bounds`; two boxes across the antimeridian."""
    return on_globe(box(*lonlat_bounds(crs, bounds)))


def overlap_fractions(ones: Any, others: Any) -> Any:
    """Return the share of the smaller geometry that both cover, 0-1, per element.

    Areas are measured in square degrees. This is exact enough for a ratio, since two
    scenes that meet lie at one latitude. In a footprint 2 degrees high at 60 degrees
    north, northern and southern parts count 6 % differently.

    Args:
        ones: array of geometries.
        others: array of geometries, of the same shape.
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
    # Holes are dropped: no footprint over the antimeridian is known to have one.
    whole = shapely.make_valid(Polygon(np.column_stack([unwrapped, coordinates[:, 1]])))
    pieces = []
    for turn in (-360.0, 0.0, 360.0):
        inside = shapely.intersection(whole, box(-180.0 + turn, -90.0, 180.0 + turn, 90.0))
        moved = shapely.transform(inside, lambda xy, turn=turn: xy - (turn, 0.0))
        pieces += _polygons(moved)
    return pieces


def degrees(bounds: tuple[float, ...]) -> str:
    """Return bounds in degrees as text for messages."""
    return "lon {0:.3f} to {2:.3f}, lat {1:.3f} to {3:.3f}".format(*bounds)
