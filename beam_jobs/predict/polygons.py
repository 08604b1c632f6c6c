"""Polygons: the areas of chosen classes of a map, as a vector file.

Input: `class.tif`. Output: GeoPackage or FlatGeobuf in the map's CRS, whose unit is the
metre. Areas are whole however large they are, and keep their holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from rasterio import features

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.predict.config import PolygonConfig
from beam_jobs.rasters import writing

FILES = {"GPKG": "polygons.gpkg", "FlatGeobuf": "polygons.fgb"}
"""Format -> name of the file."""
_LAYER = "classes"
_DATE_OPTION = "OGR_CURRENT_DATE"


def write(
    class_file: Path, classes: Sequence[LabelClass], config: PolygonConfig, path: Path, made_at: str
) -> int:
    """Write the polygons of a map and return their number.

    Pixels that touch at a corner only belong to two polygons. Outlines of neighbours
    are simplified together, so that no gap opens between them.

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
    ids = {one.id: one.name for one in classes if one.name in config.classes}
    with rasterio.open(class_file) as dataset:
        crs = dataset.crs.to_string()
        pixel_m = abs(dataset.transform.a)
        found = [
            (shapely.geometry.shape(geometry), int(value))
            for geometry, value in features.shapes(rasterio.band(dataset, 1), connectivity=4)
            if int(value) in ids
        ]
    outlines = np.array([geometry for geometry, _ in found], dtype=object)
    values = np.array([value for _, value in found], dtype=np.int32)
    kept = shapely.area(outlines) >= config.min_area_m2 if len(outlines) else np.zeros(0, bool)
    outlines, values = outlines[kept], values[kept]
    if config.simplify_px and len(outlines):
        outlines = shapely.coverage_simplify(outlines, config.simplify_px * pixel_m)
    pyogrio.set_gdal_config_options({_DATE_OPTION: made_at})
    try:
        with writing.whole(path, is_tiff=False):
            pyogrio.raw.write(
                path,
                geometry=shapely.to_wkb(outlines),
                field_data=[
                    values,
                    np.array([ids[value] for value in values.tolist()], dtype=object),
                    shapely.area(outlines) if len(outlines) else np.zeros(0),
                ],
                fields=["class", "name", "area_m2"],
                geometry_type="Polygon",
                crs=crs,
                layer=_LAYER,
                driver="GPKG" if path.suffix == ".gpkg" else "FlatGeobuf",
            )
    finally:
        pyogrio.set_gdal_config_options({_DATE_OPTION: None})
    return len(outlines)
