"""Floods: a map of water less the water that is always there.

Input: `class.tif` of a map, and a reference: maps of a dry date, or a raster of
permanent water. Output: a Cloud Optimized GeoTIFF with the classes dry, permanent and
flooded, and their areas within polygons. All is read block by block.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import rasterio
import shapely
from rasterio import features
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from beam_jobs.contracts.labels import LabelClass
from beam_jobs.contracts.locations import content_of, staged
from beam_jobs.errors import DataError
from beam_jobs.predict import maps, stac
from beam_jobs.predict.parts import NO_DATA
from beam_jobs.rasters import sources
from beam_jobs.scenes import footprints
from beam_jobs.scenes.grids import LONLAT, transformer

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
_STEP_M, _STEP_DEGREES = 1000.0, 0.01
"""Longest edge of a polygon that is moved to another CRS: it then bends by less than a
metre, at latitudes up to 80 degrees."""

Ids = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Mask:
    """The meaning of the values of a raster of water.

    Attributes:
        water: values that mean water.
        no_data: values without data; None = those that the file declares.
    """

    water: tuple[int, ...]
    no_data: tuple[int, ...] | None = None


KNOWN_MASKS = {
    "worldcover": Mask(water=(80,), no_data=(0,)),
    "jrc-occurrence": Mask(water=tuple(range(75, 101)), no_data=(255,)),
    "jrc-seasonality": Mask(water=(12,), no_data=(255,)),
    "jrc-transitions": Mask(water=(1, 2, 7), no_data=(255,)),
}
"""Permanent water in public data sets.

Sources: ESA WorldCover Product User Manual v2.0, table 2; JRC Global Surface Water,
Data Users Guide v2 (Pekel et al. 2016). There, 0 means land without water. Exports of
Earth Engine hide it, so the mask of the file does not count. 75 % of all looks is our
limit for "occurrence": dry spells and ice hide water that is always there.
"""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Rasters that show the water that is always there, or was there before.

    Attributes:
        paths: rasters on any grids; the first one with data counts.
        mask: what their values mean.
    """

    paths: tuple[str, ...]
    mask: Mask


def mask_of(text: str) -> Mask:
    """Return the mask of a name of KNOWN_MASKS, or of whole numbers and ranges of them.

    Raises:
        ValueError: it is neither.
    """
    if text in KNOWN_MASKS:
        return KNOWN_MASKS[text]
    water: list[int] = []
    for part in text.split(","):
        first, dash, last = (one.strip() for one in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(
                f"--reference-values must be whole numbers such as 80 or 75-100, or one of "
                f"{', '.join(KNOWN_MASKS)}, got {text!r}"
            )
        water += range(int(first), int(last or first) + 1)
    return Mask(water=tuple(water))


def reference_of(path: str, mask: Mask, water: str) -> Reference:
    """Return the reference behind a path.

    Args:
        path: folder of a map of another date, or a raster.
        mask: of a raster.
        water: name of the class of a map.

    Raises:
        DataError: the map has no such class.
    """
    folder = Path(path)
    if folder.is_dir():
        return _of_maps([folder], water)
    return Reference(paths=(path,), mask=mask)


def _of_maps(folders: Sequence[Path], water: str) -> Reference:
    ids = {water_id(folder, water) for folder in folders}
    return Reference(
        paths=tuple(str(folder / maps.CLASS_FILE) for folder in folders),
        mask=Mask(water=tuple(sorted(ids))),
    )


def of_date(map_dir: Path, date: str, water: str) -> Reference:
    """Return the maps of another date beside a map that cover its place.

    Args:
        map_dir: the map; its neighbours are maps of the same run.
        date: YYYY-MM-DD, in UTC, or "earliest", which must be before the map's own.
        water: name of the class.

    Raises:
        DataError: there is none.
    """
    own = _item(map_dir)
    place = shapely.geometry.shape(own["geometry"])
    found: dict[str, dict[Path, float]] = {}
    for path in sorted(map_dir.resolve().parent.glob(f"*/{stac.ITEM_FILE}")):
        if path.parent == map_dir.resolve():
            continue
        item = _item(path.parent)
        common = shapely.area(shapely.intersection(place, shapely.geometry.shape(item["geometry"])))
        if common > 0:
            found.setdefault(item["properties"]["datetime"][:10], {})[path.parent] = common
    wanted, text = date, date
    if date == "earliest":
        text = "an earlier day"
        wanted = min((day for day in found if day < own["properties"]["datetime"][:10]), default="")
    if wanted not in found:
        dates = f"there are maps of {', '.join(sorted(found))}" if found else "there is none"
        raise DataError(
            f"{map_dir}: no other map of {text} beside it covers its place; {dates}: name one "
            "by --reference",
            "missing_file",
        )
    by_overlap = sorted(found[wanted], key=lambda folder: (-found[wanted][folder], folder))
    return _of_maps(by_overlap, water)


def _item(map_dir: Path) -> dict[str, Any]:
    """Return the item of a map.

    Raises:
        DataError: the folder holds no map, or the item is damaged.
    """
    path = map_dir / stac.ITEM_FILE
    if not path.is_file():
        raise DataError(
            f"{map_dir}: holds no map ({stac.ITEM_FILE} is missing): make one by predict",
            "missing_file",
        )
    with content_of(path, "make the map again"):
        item: dict[str, Any] = json.loads(path.read_text())
        _ = item["assets"]["class"]["classification:classes"], item["properties"]["datetime"]
        return item


def water_id(map_dir: Path, water: str) -> int:
    """Return the id of a class of a map.

    Raises:
        DataError: the folder holds no map, or the map has no such class.
    """
    listed = _item(map_dir)["assets"]["class"]["classification:classes"]
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
    with rasterio.open(class_file) as now, ExitStack() as opened:
        rasters = [
            opened.enter_context(_on_grid(one, now, reference.mask)) for one in reference.paths
        ]
        profile = now.profile | {"driver": "GTiff", "compress": "deflate", "zlevel": 1}
        partial = path.with_name(f".{path.name}.strips.tif")
        try:
            with rasterio.open(partial, "w", **profile) as file:
                for window in _blocks(now):
                    before, known = _water_before(rasters, reference.mask, window)
                    num_known += int(known.sum())
                    ids = now.read(1, window=window)
                    as_water = np.where(ids == NO_DATA, NO_DATA, ids == water).astype(np.uint8)
                    file.write(
                        flood_classes(as_water, before, known, change=change), 1, window=window
                    )
                used = CLASSES if change else CLASSES[:RECEDED]
                file.write_colormap(1, maps.colormap({one.id: one.color for one in used}))
                file.update_tags(TERRAPAIR_CLASSES=", ".join(f"{c.id} {c.name}" for c in used))
            if not num_known:
                raise DataError(
                    f"{', '.join(reference.paths)}: does not overlap {class_file}, or is all no "
                    "data",
                    "label_elsewhere",
                )
            maps.copy_as_cog(partial, path, has_classes=True)
        finally:
            partial.unlink(missing_ok=True)


def _water_before(rasters: Sequence[WarpedVRT], mask: Mask, window: Window) -> tuple[Any, Any]:
    """Return where the reference has water, and where it has data, bool [H, W]."""
    water = known = np.zeros((window.height, window.width), bool)
    for raster in rasters:
        values = raster.read(1, window=window)
        is_new = _mask(raster, window) & np.isfinite(values) & ~known
        is_new &= ~np.isin(values, mask.no_data or ())
        water = water | (is_new & np.isin(values, mask.water))
        known = known | is_new
    return water, known


def _mask(raster: WarpedVRT, window: Window) -> Any:
    if ColorInterp.alpha not in raster.colorinterp:
        return raster.read_masks(1, window=window) > 0
    # GDAL takes an alpha band for a mask only in files of two or four bands.
    return raster.read(1 + raster.colorinterp.index(ColorInterp.alpha), window=window) > 0


@contextmanager
def _on_grid(path: str, target: rasterio.DatasetReader, mask: Mask) -> Iterator[WarpedVRT]:
    """Open a raster on the grid of another one; each pixel is its nearest."""
    with sources.shut(path), sources.open_checked(path) as dataset:
        nodata = dataset.nodata if mask.no_data is None else None
        # Without a value for it, the pixels beyond the raster need a mask.
        add_alpha = nodata is None and ColorInterp.alpha not in dataset.colorinterp
        with WarpedVRT(
            dataset,
            crs=target.crs,
            transform=target.transform,
            width=target.width,
            height=target.height,
            resampling=Resampling.nearest,
            src_nodata=nodata,
            add_alpha=add_alpha,
        ) as warped:
            yield warped


def _blocks(dataset: rasterio.DatasetReader) -> Iterator[Window]:
    for first in range(0, dataset.height, _BLOCK_ROWS):
        yield Window(0, first, dataset.width, min(_BLOCK_ROWS, dataset.height - first))


def write_areas(flood_file: Path, areas: str, name_column: str, path: Path) -> int:
    """Write the area of each flood class within each polygon, and return their number.

    Polygons may overlap. A polygon outside the map has the area 0. Pixels count where
    their centre lies.

    Args:
        flood_file: of `write_flood_map`; its CRS has metres.
        areas: vector file of polygons, in any CRS.
        name_column: column with the names of the polygons.
        path: of the CSV file: name, and square metres of each class, of no data, and of
            what lies beyond the map.

    Raises:
        DataError: the vector file cannot be read, or lacks the column.
    """
    with rasterio.open(flood_file) as dataset:
        names, outlines, outside_m2 = _read_polygons(areas, name_column, dataset)
        pixel_m2 = abs(dataset.transform.determinant)
        columns = [*(f"{one.name}_m2" for one in CLASSES), "no_data_m2", "outside_m2"]
        with staged(path) as partial, partial.open("w", newline="") as lines:
            table = csv.writer(lines)
            table.writerow([name_column, *columns])
            for name, outline, outside in zip(names, outlines, outside_m2, strict=True):
                counts = _count(dataset, outline)
                values = [*counts[: len(CLASSES)], counts[NO_DATA]]
                inside = [f"{value * pixel_m2:.0f}" for value in values]
                table.writerow([name, *inside, f"{outside:.0f}"])
    return len(names)


def _read_polygons(
    areas: str, name_column: str, dataset: rasterio.DatasetReader
) -> tuple[list[str], Any, list[float]]:
    """Return names of polygons, their outlines on the map, and m2 beyond the map."""
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
    given = shapely.make_valid(shapely.from_wkb(geometries))
    crs, map_crs = info["crs"], dataset.crs.to_string()
    # A straight line of one CRS is bent in another, so it needs points between.
    is_geographic = pyproj.CRS.from_user_input(crs).is_geographic
    on_globe = shapely.make_valid(
        _moved(given, crs, LONLAT, _STEP_DEGREES if is_geographic else _STEP_M)
    )
    whole = shapely.segmentize(shapely.box(*dataset.bounds), _STEP_M)
    covered = footprints.on_globe(_moved(whole, map_crs, LONLAT, _STEP_M))
    beyond = shapely.difference(on_globe, covered)
    geod = pyproj.Geod(ellps="WGS84")
    outside_m2 = [
        0.0 if one is None or one.is_empty else abs(geod.geometry_area_perimeter(one)[0])
        for one in beyond
    ]
    if pyproj.CRS.from_user_input(crs) != pyproj.CRS.from_user_input(map_crs):
        # Far from the map its projection is not defined.
        near = shapely.buffer(covered, 10 * _STEP_DEGREES)
        given = shapely.make_valid(
            _moved(shapely.intersection(on_globe, near), LONLAT, map_crs, _STEP_DEGREES)
        )
    return [str(value) for value in values], given, outside_m2


def _moved(geometries: Any, source: str, target: str, step: float) -> Any:
    """Return geometries in another CRS, with a point at each `step` of the source."""
    project = transformer(source, target).transform
    return shapely.transform(
        shapely.segmentize(geometries, step), lambda xy: np.column_stack(project(*xy.T))
    )


def _count(dataset: rasterio.DatasetReader, outline: Any) -> npt.NDArray[np.int64]:
    """Return value -> number of pixels whose centre a polygon holds."""
    counts = np.zeros(256, np.int64)
    if outline is None or outline.is_empty:
        return counts
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
