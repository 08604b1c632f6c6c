"""Pictures: a map at a glance, and the page that shows all maps of a folder.

Input: `class.tif` and the scenes. Output: PNG with legend, scale bar and date; HTML.
The same map gives the same bytes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rasterio import Affine
from rasterio.warp import Resampling, reproject

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import LabelClass
from beam_jobs.contracts.records import FloatArray
from beam_jobs.predict.maps import CLASS_FILE
from beam_jobs.predict.parts import NO_DATA, MapTask, cache_bytes
from beam_jobs.rasters import open_files, sources, writing
from beam_jobs.scenes import radiometry, readers
from beam_jobs.scenes.grids import LONLAT, Grid
from beam_jobs.scenes.scene import Scene

PICTURE_FILE = "map.png"
PAGE_FILE = "index.html"
OVERVIEW_FILE = "overview.png"
_MAX_PX = 900
_WIDTH_INCHES, _HEAD_INCHES, _FOOT_INCHES, _DPI = 5.5, 0.25, 0.9, 110
_NO_DATA_RGB, _LAND_RGB = (255, 255, 255), (238, 238, 238)
_TRUE_COLOR = ("B4", "B3", "B2")
_TITLES: dict[Sensor, str] = {"s1": "Sentinel-1, dB", "s2": "Sentinel-2"}
_ROWS_PER_PIXEL, _ROWS_TOGETHER = 4, 256


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A map as the page shows it.

    Attributes:
        folder: of the map, relative to the page.
        acquired: date and time, as in its item.
        geometry: its place, in degrees.
    """

    folder: str
    acquired: str
    geometry: Any


def shown(items: Mapping[str, Mapping[str, Any]]) -> list[Shown]:
    """Return the maps of items, the earliest first.

    Args:
        items: path of an item, relative to the page -> its JSON values.
    """
    found = [
        Shown(
            folder=path.rpartition("/")[0],
            acquired=item["properties"]["datetime"],
            geometry=shapely.geometry.shape(item["geometry"]),
        )
        for path, item in items.items()
    ]
    return sorted(found, key=lambda one: (one.acquired, one.folder))


def draw(class_file: Path, task: MapTask, classes: Sequence[LabelClass], path: Path) -> None:
    """Draw a map beside what the model saw, with legend, scale bar and date.

    Raises:
        DataError: a scene cannot be read.
    """
    with rasterio.open(class_file) as dataset:
        factor = max(1, math.ceil(max(dataset.shape) / _MAX_PX))
        shape = tuple(max(1, side // factor) for side in dataset.shape)
        ids = dataset.read(1, out_shape=shape)
        pixel_m = abs(dataset.transform.a) * dataset.width / shape[1]
    panels = {
        _TITLES[sensor]: _scene_rgb(task, sensor, factor)
        for sensor, scene in task.scenes.items()
        if not scene.is_absent
    }
    panels["map"] = _colors(classes)[ids]
    height, width = shape
    map_inches = _WIDTH_INCHES * height / width
    figure = Figure(
        figsize=(_WIDTH_INCHES * len(panels), map_inches + _FOOT_INCHES + _HEAD_INCHES), dpi=_DPI
    )
    total_inches = figure.get_figheight()
    foot = _FOOT_INCHES / total_inches
    for number, (title, pixels) in enumerate(panels.items()):
        axes = figure.add_axes(
            (number / len(panels), foot, 0.99 / len(panels), map_inches / total_inches)
        )
        axes.imshow(pixels, interpolation="nearest", extent=(0, width, height, 0))
        axes.set_title(title, fontsize=8, pad=3)
        axes.set_xticks([])
        axes.set_yticks([])
    _add_scale_bar(axes, width, height, pixel_m)
    title = f"{task.map_id}\n{task.acquired:%Y-%m-%d %H:%M} UTC"
    figure.text(0.01, 0.95 * foot, title, fontsize=8, verticalalignment="top")
    shares = np.bincount(ids.ravel(), minlength=256)
    num_valid = max(int(shares[:255].sum()), 1)
    figure.legend(
        handles=[
            Patch(color=one.color, label=f"{one.name} {100 * shares[one.id] / num_valid:.1f} %")
            for one in classes
        ],
        loc="lower right",
        ncols=3,
        fontsize=7,
        frameon=False,
    )
    _save(figure, path)


def _colors(classes: Sequence[LabelClass]) -> npt.NDArray[np.uint8]:
    """Return the color of each class id, uint8 [256, 3]."""
    table = np.full((256, 3), _NO_DATA_RGB, np.uint8)
    for one in classes:
        table[one.id] = [int(one.color[at : at + 2], 16) for at in (1, 3, 5)]
    return table


def _save(figure: Figure, path: Path) -> None:
    # Without the version of matplotlib, which would change the bytes.
    with writing.whole(path, is_tiff=False):
        figure.savefig(path, format="png", metadata={"Software": None})


def _scene_rgb(task: MapTask, sensor: Sensor, factor: int) -> npt.NDArray[np.uint8]:
    """Return a scene as a picture, uint8 [h, w, 3]; white where it has no data.

    Radar is gray, in dB; optical scenes are in true color if they have its bands. The
    range is that of 96 % of the pixels.
    """
    scene = task.scenes[sensor]
    true_color = sensor == "s2" and all(name in scene.bands for name in _TRUE_COLOR)
    names = _TRUE_COLOR if true_color else (next(iter(scene.bands)),)
    rows = task.grid.window(0, 0, min(_ROWS_TOGETHER, task.grid.height), task.grid.width)
    with open_files.keep_open(cache_bytes(task, {sensor: names}, rows)):
        values = _thinned(scene, names, task.grid, factor)
    seen = np.isfinite(values).all(axis=-1)
    low, high = np.percentile(values[seen], (2, 98)) if seen.any() else (0.0, 1.0)
    with np.errstate(invalid="ignore"):
        share = np.clip((values - low) / max(high - low, 1e-6), 0.0, 1.0)
    picture = np.where(seen[..., np.newaxis], np.rint(255 * share), _NO_DATA_RGB)
    return np.broadcast_to(picture, (*seen.shape, 3)).astype(np.uint8)


def _thinned(scene: Scene, names: tuple[str, ...], grid: Grid, factor: int) -> FloatArray:
    """Return bands of a scene on a grid `factor` times coarser, float32 [h, w, C].

    A pixel is the mean of pixels below it, radar in power: of all columns, and of at
    most four rows. Memory holds a few rows.
    """
    height, width = max(1, grid.height // factor), max(1, grid.width // factor)
    num_rows = min(factor, _ROWS_PER_PIXEL)
    # Where all rows are read, many are read together.
    num_together = max(1, _ROWS_TOGETHER // factor) if num_rows == factor else 1
    strips = []
    for first in range(0, height, num_together):
        number = min(num_together, height - first)
        part = grid.window(first * factor, 0, number * num_rows, width * factor)
        values = readers.read_bands(scene, names, part)
        if scene.sensor == "s1":
            values = radiometry.db_to_power(values)
        blocks = values.reshape(number, num_rows, width, factor, len(names))
        known = np.isfinite(blocks)
        count = known.sum(axis=(1, 3))
        total = np.where(known, blocks, 0.0).sum(axis=(1, 3))
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        strips.append(radiometry.power_to_db(mean) if scene.sensor == "s1" else mean)
    return np.concatenate(strips).astype(np.float32)


def _add_scale_bar(axes: Axes, width: int, height: int, pixel_m: float) -> None:
    """Draw a bar of a round length, about a fifth of the map."""
    wanted = 0.2 * width * pixel_m
    step = 10.0 ** math.floor(math.log10(wanted))
    length_m = max(factor * step for factor in (1, 2, 5) if factor * step <= wanted)
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    left, top = 0.03 * width, 0.96 * height
    for color, line in (("black", 5.0), ("white", 2.5)):
        axes.plot([left, left + length_m / pixel_m], [top, top], color=color, linewidth=line)
    axes.text(
        left,
        top - 0.02 * height,
        text,
        fontsize=8,
        bbox={"facecolor": "white", "alpha": 0.7, "pad": 1.0, "linewidth": 0},
    )


def draw_overview(
    root: str, maps: Sequence[Shown], classes: Sequence[LabelClass], path: Path
) -> None:
    """Draw all maps of a folder where they lie, later ones above earlier ones.

    Args:
        root: folder or URI that the maps' folders are relative to.
        maps: in order.
        classes: of the maps.
        path: of the picture.
    """
    places = _side_by_side([one.geometry for one in maps])
    west, south, east, north = shapely.total_bounds(places)
    # A pixel is as wide as high on the ground, in the middle of the picture.
    wider = 1.0 / math.cos(math.radians((south + north) / 2))
    half = 0.55 * max((east - west) / wider, north - south)
    half_height = max(0.55 * (north - south), half / 2)
    step = 2 * half / _MAX_PX
    middle = (west + east) / 2, (south + north) / 2
    shape = (math.ceil(2 * half_height / step), _MAX_PX)
    to_place = Affine.translation(middle[0] - half * wider, middle[1] + half_height) * Affine.scale(
        step * wider, -step
    )
    canvas = np.full((*shape, 3), _LAND_RGB, np.uint8)
    table = _colors(classes)
    for one in maps:
        ids = _ids_on(f"{root}/{one.folder}/{CLASS_FILE}", to_place, shape)
        seen = ids != NO_DATA
        canvas[seen] = table[ids[seen]]
    figure = Figure(figsize=(9.0, 0.6 + 8.2 * shape[0] / shape[1]), dpi=_DPI)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.98, bottom=0.5 / figure.get_figheight())
    axes = figure.subplots()
    left, bottom = to_place * (0, shape[0])
    right, top = to_place * (shape[1], 0)
    axes.imshow(canvas, extent=(left, right, bottom, top), aspect="auto", interpolation="nearest")
    numbers: dict[tuple[float, float], list[str]] = {}
    for number, place in enumerate(places, start=1):
        for outline in shapely.get_parts(place):
            axes.plot(*outline.exterior.xy, color="black", linewidth=0.8)
        x, y = place.representative_point().coords[0]
        # Maps of one place share a label.
        numbers.setdefault((round(x / step), round(y / step)), []).append(str(number))
    for (x, y), found in numbers.items():
        axes.annotate(", ".join(found), (x * step, y * step), fontsize=8, color="red")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("degrees east", fontsize=7)
    axes.set_ylabel("degrees north", fontsize=7)
    _save(figure, path)


def _side_by_side(geometries: Sequence[Any]) -> Any:
    """Return places in degrees; those at the antimeridian reach beyond 180."""
    places = np.array(geometries, dtype=object)
    west, _, east, _ = shapely.total_bounds(places)
    moved = shapely.transform(places, lambda xy: np.c_[xy[:, 0] % 360.0, xy[:, 1]])
    far_west, _, far_east, _ = shapely.total_bounds(moved)
    return moved if far_east - far_west < east - west else places


def _ids_on(class_file: str, to_place: Affine, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the nearest class ids of a map on a grid in degrees, uint8 [h, w]."""
    with sources.open_dataset(class_file) as dataset:
        smaller = max(1.0, max(dataset.shape) / _MAX_PX)
        rows, cols = (max(1, round(side / smaller)) for side in dataset.shape)
        to_map = dataset.transform * Affine.scale(dataset.width / cols, dataset.height / rows)
        found, _ = reproject(
            dataset.read(1, out_shape=(rows, cols)),
            np.full(shape, NO_DATA, np.uint8),
            src_crs=dataset.crs,
            src_transform=to_map,
            src_nodata=NO_DATA,
            dst_crs=LONLAT,
            dst_transform=to_place,
            dst_nodata=NO_DATA,
            resampling=Resampling.nearest,
        )
    return found


def page(title: str, maps: Sequence[Shown]) -> str:
    """Return an HTML page with an overview and the pictures of all maps.

    Args:
        title: of the page.
        maps: in order.
    """
    figures = "\n".join(
        f'<figure><a href="{html.escape(_url(one.folder))}/{CLASS_FILE}">'
        f'<img src="{html.escape(_url(one.folder))}/{PICTURE_FILE}" alt="" loading="lazy"></a>'
        f"<figcaption>{number}. {html.escape(one.acquired[:10])} {html.escape(one.folder)}"
        "</figcaption></figure>"
        for number, one in enumerate(maps, start=1)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{html.escape(title)}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(30em, 1fr)); gap: 1em; }}
figure {{ margin: 0; }}
img {{ width: 100%; }}
header img {{ max-width: 60em; }}
figcaption {{ font-size: 0.8em; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
<img src="{OVERVIEW_FILE}" alt="Where the maps lie, by their numbers">
</header>
<main>
{figures}
</main>
</body>
</html>
"""


def _url(name: str) -> str:
    return name.replace("%", "%25")
