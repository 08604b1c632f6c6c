"""Readers: any part of an inspected scene, on any grid.

Input: Scene and Grid. Output: float32 [H, W, C] in dB or reflectance with NaN as no
data, boolean cloud masks. `beam_jobs/rasters` opens the files, whatever their format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.warp import transform_bounds
from rasterio.windows import Window, from_bounds

from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Pixels, Raster
from beam_jobs.scenes import radiometry, resampling
from beam_jobs.scenes.assets import BandSource
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene

MARGIN_PX = 4
"""Source pixels that are read around a window before resampling.

With them, interpolation at the window's edge gives the same values as over the whole
scene.
"""


@dataclass(frozen=True, kw_only=True)
class _Planes:
    """Bands of a scene that lie on one grid of its files.

    Attributes:
        names: of the bands.
        values: float32 [C, h, w] as archives store them (dB or digital numbers), NaN =
            no data.
        source: where the pixels lie.
    """

    names: list[str]
    values: FloatArray
    source: resampling.Source


def read_bands(
    scene: Scene,
    band_names: tuple[str, ...],
    grid: Grid,
    *,
    num_out_of_range: Counter[str] | None = None,
) -> FloatArray:
    """Return physical values of an inspected scene on `grid`, float32 [H, W, C].

    NaN marks no data and pixels outside the scene; all pixels of an absent scene are
    NaN. Bands on another grid are resampled bilinearly, radar in linear power. A target
    pixel is valid only where its nearest source pixel is valid, so no data neither
    grows nor mixes with measurements.

    Args:
        scene: inspected.
        band_names: wanted bands.
        grid: wanted grid.
        num_out_of_range: per band, receives the number of pixels of `grid` whose value
            no measurement can have.
    """
    if scene.is_absent:
        return np.full((grid.height, grid.width, len(band_names)), np.nan, np.float32)
    # Each band is contiguous in memory: writing into interleaved pixels of 12 bands
    # would take longer than all the arithmetic.
    result = np.full((len(band_names), grid.height, grid.width), np.nan, np.float32)
    for part in _stored_planes(scene, band_names, grid):
        for plane, name in zip(_ON_GRID[scene.sensor](scene, part, grid), part.names, strict=True):
            result[band_names.index(name)] = plane
        if num_out_of_range is not None:
            num_out_of_range.update(_count_out_of_range(scene, part, grid))
    return np.moveaxis(result, 0, -1)


def _count_out_of_range(scene: Scene, part: _Planes, grid: Grid) -> Counter[str]:
    """Return, per band, how many pixels of `grid` have a value out of range."""
    counts: Counter[str] = Counter()
    for name, outside in zip(
        part.names, radiometry.out_of_range(part.values, scene.sensor), strict=True
    ):
        # Nearly no scene has such a pixel.
        if outside.any():
            on_grid = resampling.ids_to_grid(outside.astype(np.uint8), part.source, grid, fill=0)
            counts[name] = int(on_grid.sum())
    return +counts


def _backscatter_on_grid(scene: Scene, part: _Planes, grid: Grid) -> FloatArray:
    backscatter_db = radiometry.clean_backscatter_db(
        part.values, is_zero_missing=not scene.declares_units
    )
    return resampling.backscatter_to_grid(backscatter_db, part.source, grid)


def _reflectance_on_grid(scene: Scene, part: _Planes, grid: Grid) -> FloatArray:
    reflectance = radiometry.dn_to_reflectance(part.values, scene.dn_offset or 0)
    return resampling.reflectance_to_grid(reflectance, part.source, grid)


_ON_GRID: dict[Sensor, Callable[[Scene, _Planes, Grid], FloatArray]] = {
    "s1": _backscatter_on_grid,
    "s2": _reflectance_on_grid,
}


def read_cloud_mask(
    path: str, grid: Grid, clear_values: tuple[int, ...] = (0,)
) -> npt.NDArray[np.bool_]:
    """Return the cloud mask on `grid`, bool [H, W], True = cloud.

    Pixels that the mask does not cover are True too.

    Args:
        path: of the mask.
        grid: wanted grid.
        clear_values: stored values that mean clear; more than 0 when the mask separates
            several clear classes, such as land and water.
    """
    with open_raster(path) as dataset:
        pixels, source_grid = read_window(dataset, [1], grid)
    mask = (
        (~np.isin(pixels[0], clear_values)).astype(np.uint8)
        if pixels.size
        else np.zeros((0, 0), np.uint8)
    )
    return resampling.ids_to_grid(mask, source_grid, grid, fill=1) == 1


def _stored_planes(scene: Scene, band_names: tuple[str, ...], grid: Grid) -> Iterator[_Planes]:
    """Yield the wanted bands as archives store them, one _Planes per source grid.

    Files on the same grid are joined: with one file per polarization, the fill value 0
    can be told from a measured 0 dB only by looking at all polarizations together.
    """
    parts: dict[tuple[Any, ...], list[tuple[list[str], FloatArray]]] = {}
    for path, sources in by_file(scene.bands, band_names).items():
        with open_raster(path) as dataset:
            pixels, source_grid = read_window(dataset, band_indexes(dataset, sources), grid)
        values = as_archived(pixels.astype(np.float32), dataset.nodata, sources)
        if values.size:
            parts.setdefault((*source_grid, values.shape[1:]), []).append((list(sources), values))
    for (crs, transform, _), found in parts.items():
        names = [name for part, _ in found for name in part]
        planes = [values for _, values in found]
        values = planes[0] if len(planes) == 1 else np.concatenate(planes)
        yield _Planes(names=names, values=values, source=(crs, transform))


def by_file(
    bands: Mapping[str, BandSource], names: tuple[str, ...]
) -> dict[str, dict[str, BandSource]]:
    """Group the wanted bands by file, so that each file is opened once."""
    files: dict[str, dict[str, BandSource]] = {}
    for name in names:
        files.setdefault(bands[name].path, {})[name] = bands[name]
    return files


def band_indexes(dataset: Raster, sources: Mapping[str, BandSource]) -> list[int]:
    """Return the 1-based index of each band in the file.

    Raises:
        DataError: the file has no such band, or its own band descriptions contradict
            the catalog.
    """
    indexes = []
    for name, source in sources.items():
        if source.key and source.key not in dataset.descriptions:
            known = ", ".join(str(description) for description in dataset.descriptions)
            raise DataError(
                f"{dataset.name}: has no band {source.key}; it has {known}", "missing_bands"
            )
        index = dataset.descriptions.index(source.key) + 1 if source.key else source.index
        if index > len(dataset.descriptions):
            raise DataError(
                f"{dataset.name}: the catalog puts band {name} at {index}, "
                f"the file has {len(dataset.descriptions)} bands",
                "missing_bands",
            )
        written = dataset.descriptions[index - 1]
        if written in BANDS["s1"] | BANDS["s2"] and written != name:
            raise DataError(
                f"{dataset.name}: the catalog puts band {name} at {index}, "
                f"the file calls that one {written}",
                "unknown_band_order",
            )
        indexes.append(index)
    return indexes


def as_archived(pixels: Pixels, nodata: float | None, sources: Mapping[str, BandSource]) -> Pixels:
    """Convert float pixels [C, h, w] in place to dB or digital numbers, NaN = no data.

    No data are the file's no-data value and the one that the catalog gives for a band.
    """
    for plane, source in zip(pixels, sources.values(), strict=True):
        for value in (nodata, source.nodata):
            if value is not None:
                plane[plane == plane.dtype.type(value)] = np.nan
        if source.unit:
            plane[:] = radiometry.declared_values(plane, source.unit, source.scale, source.offset)
    return pixels


def read_window(
    dataset: Raster, indexes: list[int], grid: Grid
) -> tuple[npt.NDArray[Any], resampling.Source]:
    """Return the stored pixels [C, h, w] that `grid` needs, and where they lie."""
    if dataset.crs is None:
        raise DataError(f"{dataset.name}: the raster has no CRS", "missing_crs")
    crs = dataset.crs.to_string()
    bounds = (
        grid.bounds
        if crs == grid.crs
        else transform_bounds(grid.crs, dataset.crs, *grid.bounds, densify_pts=21)
    )
    wanted = from_bounds(*bounds, transform=dataset.transform)
    col0 = max(int(np.floor(wanted.col_off + 1e-6)) - MARGIN_PX, 0)
    row0 = max(int(np.floor(wanted.row_off + 1e-6)) - MARGIN_PX, 0)
    col1 = min(int(np.ceil(wanted.col_off + wanted.width - 1e-6)) + MARGIN_PX, dataset.width)
    row1 = min(int(np.ceil(wanted.row_off + wanted.height - 1e-6)) + MARGIN_PX, dataset.height)
    if col1 <= col0 or row1 <= row0:
        return np.zeros((len(indexes), 0, 0)), (crs, dataset.transform)
    window = Window(col0, row0, col1 - col0, row1 - row0)
    return dataset.read(indexes, window=window), (crs, dataset.window_transform(window))
