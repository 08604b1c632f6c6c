"""Floods: a map of water less the water that is always there.

Input: `class.tif` of a map, and a reference: the map of a dry date, or a raster of
permanent water. Output: a Cloud Optimized GeoTIFF with the classes dry, permanent and
flooded, and their areas within polygons. All is read block by block.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import rasterio
import shapely
from rasterio import features
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.contracts.locations import content_of, staged
from beam_jobs.errors import DataError
from beam_jobs.predict import maps, stac
from beam_jobs.predict.parts import NO_DATA
from beam_jobs.rasters import sources
from beam_jobs.scenes.grids import transformer

DRY, PERMANENT, FLOODED, RECEDED = range(4)
CLASSES = (
    LabelClass(id=DRY, name="dry", color="#d9c9a3"),
    LabelClass(id=PERMANENT, name="permanent", color="#1f5fbf"),
    LabelClass(id=FLOODED, name="flooded", color="#d7301f"),
    LabelClass(id=RECEDED, name="receded", color="#7fbf7b"),
)
"""Classes of the flood map; `receded` is used in a comparison of two dates only."""
FLOOD_FILE, AREA_FILE = "flood.tif", "areas.csv"
_BLOCK_ROWS = 1024

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A raster that shows the water that is always there, or was there before.

    Attributes:
        path: raster on any grid.
        water: its values that mean water.
    """

    path: str
    water: Sequence[int]


def reference_of(path: str, values: Sequence[int], water: str) -> Reference:
    """Return the reference behind a path.

    Args:
        path: folder of a map of another date, or a raster.
        values: of a raster that mean water.
        water: name of the class of a map.

    Raises:
        DataError: the map has no such class.
    """
    folder = Path(path)
    if folder.is_dir():
        return Reference(path=str(folder / maps.CLASS_FILE), water=(water_id(folder, water),))
    return Reference(path=path, water=values)


def water_id(map_dir: Path, water: str) -> int:
    """Return the id of a class of a map.

    Raises:
        DataError: the folder holds no map, or the map has no such class.
    """
    path = map_dir / stac.ITEM_FILE
    if not path.is_file():
        raise DataError(
            f"{map_dir}: holds no map ({stac.ITEM_FILE} is missing): make one by predict",
            "missing_file",
        )
    with content_of(path, "make the map again"):
        listed = json.loads(path.read_text())["assets"]["class"]["classification:classes"]
        ids = {one["name"]: int(one["value"]) for one in listed}
    if water not in ids:
        raise DataError(
            f"{map_dir}: the map has no class {water!r}; it has {', '.join(ids)}: name one by "
            "--water",
            "class_absent",
        )
    return ids[water]


def flood_classes(now: Ids, before: npt.NDArray[np.bool_], known: Any, *, change: bool) -> Ids:
    """Return the flood class of each pixel; no data where one of both has none.

    Args:
        now: 1 = water, 0 = none, 255 = no data.
        before: True = water in the reference.
        known: True where the reference has data.
        change: whether water that is gone is a class of its own; otherwise permanent
            water stays so, even if it is not seen now.
    """
    wet = now == 1
    found = np.where(before, PERMANENT, np.where(wet, FLOODED, DRY)).astype(np.uint8)
    if change:
        found[before & ~wet] = RECEDED
    found[(now == NO_DATA) | ~known] = NO_DATA
    return found


def write_flood_map(
    class_file: Path, water: int, reference: Reference, path: Path, *, change: bool = False
) -> None:
    """Write the flood map of a map, on its grid.

    Args:
        class_file: `class.tif` of the map.
        water: id of water in it.
        reference: permanent water, or the water of another date.
        path: of the flood map.
        change: see `flood_classes`.

    Raises:
        DataError: the reference cannot be read, or does not overlap the map.
    """
    num_known = 0
    with rasterio.open(class_file) as now, _on_grid(reference.path, now) as before:
        profile = now.profile | {"driver": "GTiff", "compress": "deflate", "zlevel": 1}
        partial = path.with_name(f".{path.name}.strips.tif")
        try:
            with rasterio.open(partial, "w", **profile) as file:
                for window in _blocks(now):
                    known = before.read_masks(1, window=window) > 0
                    num_known += int(known.sum())
                    wet = np.isin(before.read(1, window=window), list(reference.water))
                    ids = now.read(1, window=window)
                    as_water = np.where(ids == NO_DATA, NO_DATA, ids == water).astype(np.uint8)
                    file.write(
                        flood_classes(as_water, wet & known, known, change=change),
                        1,
                        window=window,
                    )
                used = CLASSES if change else CLASSES[:RECEDED]
                file.write_colormap(1, maps.colormap({one.id: one.color for one in used}))
                file.update_tags(TERRAPAIR_CLASSES=", ".join(f"{c.id} {c.name}" for c in used))
            if not num_known:
                raise DataError(
                    f"{reference.path}: does not overlap {class_file}, or is all no data",
                    "label_elsewhere",
                )
            maps.copy_as_cog(partial, path, has_classes=True)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _on_grid(path: str, target: rasterio.DatasetReader) -> Iterator[WarpedVRT]:
    """Open a raster on the grid of another one; each pixel is its nearest."""
    with (
        sources.shut(path),
        sources.open_checked(path) as dataset,
        WarpedVRT(
            dataset,
            crs=target.crs,
            transform=target.transform,
            width=target.width,
            height=target.height,
            resampling=Resampling.nearest,
            add_alpha=dataset.nodata is None and dataset.count == 1,
        ) as warped,
    ):
        yield warped


def _blocks(dataset: rasterio.DatasetReader) -> Iterator[Window]:
    for first in range(0, dataset.height, _BLOCK_ROWS):
        yield Window(0, first, dataset.width, min(_BLOCK_ROWS, dataset.height - first))


def write_areas(flood_file: Path, areas: str, name_column: str, path: Path) -> int:
    """Write the area of each flood class within each polygon, and return their number.

    Polygons may overlap. A polygon outside the map has the area 0.

    Args:
        flood_file: of `write_flood_map`; its CRS has metres.
        areas: vector file of polygons, in any CRS.
        name_column: column with the names of the polygons.
        path: of the CSV file: name, and square metres of each class and of no data.

    Raises:
        DataError: the vector file cannot be read, or lacks the column.
    """
    with rasterio.open(flood_file) as dataset:
        names, outlines = _read_polygons(areas, name_column, dataset.crs.to_string())
        pixel_m2 = abs(dataset.transform.determinant)
        columns = [*(f"{one.name}_m2" for one in CLASSES), "no_data_m2"]
        with staged(path) as partial, partial.open("w", newline="") as lines:
            table = csv.writer(lines)
            table.writerow([name_column, *columns])
            for name, outline in zip(names, outlines, strict=True):
                counts = _count(dataset, outline)
                values = [*counts[: len(CLASSES)], counts[NO_DATA]]
                table.writerow([name, *(f"{value * pixel_m2:.0f}" for value in values)])
    return len(names)


def _read_polygons(areas: str, name_column: str, crs: str) -> tuple[list[str], Any]:
    try:
        info = pyogrio.read_info(areas)
        if name_column not in info["fields"]:
            raise DataError(
                f"{areas}: no column {name_column!r}; it has {', '.join(info['fields'])}",
                "bad_vector",
            )
        if not info["crs"]:
            raise DataError(f"{areas}: has no coordinate system", "missing_crs")
        _, _, geometries, (values,) = pyogrio.raw.read(areas, columns=[name_column])
    except pyogrio.errors.DataSourceError as error:
        why = " ".join(str(error).split())
        raise DataError(f"{areas}: cannot be read as polygons ({why})", "bad_vector") from error
    project = transformer(info["crs"], crs).transform
    moved = shapely.transform(
        shapely.from_wkb(geometries),
        lambda xy: np.column_stack(project(xy[:, 0], xy[:, 1])),
    )
    return [str(value) for value in values], shapely.make_valid(moved)


def _count(dataset: rasterio.DatasetReader, outline: Any) -> npt.NDArray[np.int64]:
    """Return value -> number of pixels whose centre a polygon holds."""
    counts = np.zeros(256, np.int64)
    west, south, east, north = shapely.bounds(outline)
    for block in _blocks(dataset):
        transform = window_transform(block, dataset.transform)
        top, bottom = transform.f, transform.f + transform.e * block.height
        if north < bottom or south > top:
            continue
        first = max(0, int((west - transform.c) / transform.a))
        last = min(dataset.width, int((east - transform.c) / transform.a) + 1)
        if first >= last:
            continue
        window = Window(first, block.row_off, last - first, block.height)
        inside = features.geometry_mask(
            [outline],
            (window.height, window.width),
            window_transform(window, dataset.transform),
            invert=True,
        )
        counts += np.bincount(dataset.read(1, window=window)[inside], minlength=256)
    return counts
