"""Polygons: the areas of chosen classes of a map, as a vector file.

Input: `class.tif`, whose CRS has metres. Output: GeoPackage or FlatGeobuf in that CRS
or another. Areas are whole however large they are, and keep their holes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyproj
import rasterio
import shapely
from rasterio.windows import Window

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.predict import outlines
from beam_jobs.predict.config import PolygonConfig
from beam_jobs.predict.outlines import Polygons, Strip
from beam_jobs.rasters import writing
from beam_jobs.scenes import grids

FILES = {"GPKG": "polygons.gpkg", "FlatGeobuf": "polygons.fgb"}
"""Format -> name of the file."""
_LAYER = "classes"
_DATE_OPTION = "OGR_CURRENT_DATE"
_STRIP_ROWS = 1024
_STEP_PX = 100
"""Longest edge of a reprojected polygon. At 10 m a pixel, its bend is below 0.1 m at
latitudes up to 80 degrees: step * step * tan(latitude) / (8 * radius of the Earth)."""


def write(
    class_file: Path, classes: Sequence[LabelClass], config: PolygonConfig, path: Path, made_at: str
) -> int:
    """Write the polygons of a map and return their number.

    `area_m2` of a polygon is that of its pixels on the map's grid, whatever is done to
    its outline. See `outlines` for the rest.

    Args:
        class_file: the map.
        classes: of the map.
        config: which classes, and how.
        path: of the file.
        made_at: time that a GeoPackage notes, RFC 3339 in UTC. It is given, so that the
            same map gives the same bytes.

    Raises:
        pyogrio.errors.DataSourceError: the file cannot be written.
    """
    names = {one.id: one.name for one in classes if one.name in config.classes}
    with rasterio.open(class_file) as dataset:
        crs = dataset.crs.to_string()
        to_map = dataset.transform
        pixel_m2 = abs(to_map.determinant)
        found, values = outlines.trace(_strips(dataset), list(names), config.min_area_m2 / pixel_m2)
    areas_m2 = shapely.area(found) * pixel_m2 if len(found) else np.zeros(0)
    if config.simplify_px:
        found = outlines.simplified(found, config.simplify_px)
    found = shapely.transform(found, lambda xy: np.column_stack(to_map * xy.T))
    if config.crs and config.crs != crs:
        found = _reprojected(found, crs, config.crs, step_m=_STEP_PX * abs(to_map.a))
    is_multi = bool((shapely.get_type_id(found) == shapely.GeometryType.MULTIPOLYGON).any())
    pyogrio.set_gdal_config_options({_DATE_OPTION: made_at})
    try:
        with writing.whole(path, is_tiff=False):
            pyogrio.raw.write(
                path,
                geometry=shapely.to_wkb(found),
                field_data=[
                    values,
                    np.array([names[value] for value in values.tolist()], dtype=object),
                    areas_m2,
                ],
                fields=["class", "name", "area_m2"],
                geometry_type="MultiPolygon" if is_multi else "Polygon",
                promote_to_multi=is_multi,
                crs=config.crs or crs,
                layer=_LAYER,
                driver="GPKG" if path.suffix == ".gpkg" else "FlatGeobuf",
            )
    finally:
        pyogrio.set_gdal_config_options({_DATE_OPTION: None})
    return len(found)


def _strips(dataset: rasterio.DatasetReader) -> Iterator[Strip]:
    for first in range(0, dataset.height, _STRIP_ROWS):
        rows = min(_STRIP_ROWS, dataset.height - first)
        yield Strip(
            first=first,
            ids=dataset.read(1, window=Window(0, first, dataset.width, rows)),
            is_last=first + rows == dataset.height,
        )


def _reprojected(found: Polygons, source: str, target: str, *, step_m: float) -> Polygons:
    """Return polygons in another CRS.

    A straight line of one CRS is bent in another, so long edges get points between: up
    to `step_m` the bend stays far below a pixel. Polygons over the antimeridian are
    split if the CRS has degrees (RFC 7946, section 3.1.9).
    """
    project = grids.transformer(source, target).transform
    moved = shapely.transform(
        shapely.segmentize(found, step_m), lambda xy: np.column_stack(project(*xy.T))
    )
    if pyproj.CRS.from_user_input(target).is_geographic:
        west, _, east, _ = shapely.bounds(moved).reshape(-1, 4).T
        for at in np.flatnonzero(east - west > 180.0):
            moved[at] = _split_at_antimeridian(moved[at])
    return moved


def _split_at_antimeridian(polygon: Any) -> Any:
    """Return both parts of a polygon whose longitudes jump from 180 to -180."""
    whole = shapely.transform(polygon, lambda xy: xy + np.c_[360.0 * (xy[:, 0] < 0), 0 * xy[:, 1]])
    east = shapely.intersection(whole, shapely.box(0, -90, 180, 90))
    west = shapely.intersection(whole, shapely.box(180, -90, 360, 90))
    west = shapely.transform(west, lambda xy: xy - (360.0, 0.0))
    return shapely.multipolygons([*shapely.get_parts(east), *shapely.get_parts(west)])
