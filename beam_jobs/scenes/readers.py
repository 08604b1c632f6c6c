"""Readers: any part of an inspected scene, on any grid.

Input: Scene and Grid. Output: float32 [H, W, C] in dB or reflectance with NaN as no
data, boolean cloud masks. `beam_jobs/rasters` opens the files, whatever their format.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window
from scipy import ndimage

from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Pixels, Raster, Valid
from beam_jobs.scenes import radiometry, resampling, windows
from beam_jobs.scenes.assets import BandSource, NodataIn
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene


@dataclass(frozen=True, kw_only=True)
class _Planes:
    """Bands of a scene that lie on one grid of its files.

    Attributes:
        names: of the bands.
        values: float32 [C, h, w] as archives store them (dB or digital numbers), NaN =
            no data.
        fill: bool [C, h, w], True where a band has a value that means no data only if
            all bands of the scene have theirs.
        source: where the pixels lie.
    """

    names: list[str]
    values: FloatArray
    fill: Valid
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
    parts = _stored_planes(scene, band_names, grid)
    _settle_fill(parts)
    for part in parts:
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
    path: str, grid: Grid, clear_values: tuple[int, ...] = (0,), index: int = 1
) -> npt.NDArray[np.bool_]:
    """Return the cloud mask on `grid`, bool [H, W], True = cloud.

    Pixels that the mask does not cover, or that the file itself hides, are True too. A
    no-data value does not hide a pixel: many files declare 0, which means clear.

    Args:
        path: of the mask.
        grid: wanted grid.
        clear_values: stored values that mean clear; more than 0 when the mask separates
            several clear classes, such as land and water.
        index: 1-based band of the mask in its file.

    Raises:
        DataError: the file has no such band.
    """
    with open_raster(path) as dataset:
        if index > len(dataset.descriptions):
            raise DataError(
                f"{dataset.name}: the catalog puts the cloud mask at band {index}, "
                f"the file has {len(dataset.descriptions)} bands",
                "missing_bands",
            )
        window = windows.read_window(dataset, [index], grid)
    is_clear = np.isin(window.pixels[0], clear_values) & window.valid[0]
    return resampling.ids_to_grid((~is_clear).astype(np.uint8), window.source, grid, fill=1) == 1


def _stored_planes(scene: Scene, band_names: tuple[str, ...], grid: Grid) -> list[_Planes]:
    """Return the wanted bands as archives store them, one _Planes per source grid.

    Files on the same grid are joined: with one file per polarization, the fill value 0
    can be told from a measured 0 dB only by looking at all polarizations together.
    """
    found: dict[tuple[Any, ...], list[_Planes]] = {}
    for path, sources in by_file(scene.bands, band_names).items():
        with open_raster(path) as dataset:
            indexes = band_indexes(dataset, sources)
            window = windows.read_window(
                dataset, indexes, grid, alpha_is_data=_alpha_is_data(dataset, scene, path)
            )
            nodata = [dataset.nodata_values[index - 1] for index in indexes]
        if not window.pixels.size:
            continue
        values = _as_float(window.pixels)
        fill = _mark_no_data(values, window.valid, nodata, scene, sources)
        part = _Planes(names=list(sources), values=values, fill=fill, source=window.source)
        found.setdefault((*window.source, values.shape[1:]), []).append(part)
    return [_joined(parts) for parts in found.values()]


def _joined(parts: list[_Planes]) -> _Planes:
    """Return the bands of several files on one grid as one _Planes."""
    if len(parts) == 1:
        return parts[0]
    return _Planes(
        names=[name for part in parts for name in part.names],
        values=np.concatenate([part.values for part in parts]),
        fill=np.concatenate([part.fill for part in parts]),
        source=parts[0].source,
    )


def _settle_fill(parts: list[_Planes]) -> None:
    """Decide which fill values are no data, and change `values` in place.

    A fill value is no data where all bands have theirs or are missing, as at the edge
    of a swath. Elsewhere it is a measurement, such as dark water in the short-wave
    infrared, and is kept as the darkest one.

    Bands on another grid are looked at where they lie, and one pixel around, counted in
    the coarser pixels: at the edge of a swath, pixels of 10 and of 60 m do not end at
    the same place.
    """
    if not any(part.fill.any() for part in parts):
        return
    empty = [(part.fill | np.isnan(part.values)).all(axis=0) for part in parts]
    for part, own in zip(parts, empty, strict=True):
        everywhere = own.copy()
        for other, others in zip(parts, empty, strict=True):
            if other is not part and everywhere.any():
                everywhere &= _seen_from(others, other.source, own.shape, part.source)
        part.values[part.fill & everywhere] = np.nan
        kept = part.fill & ~everywhere
        part.values[kept] = np.maximum(part.values[kept], 1.0)


def _seen_from(
    mask: Valid, source: resampling.Source, shape: tuple[int, ...], target: resampling.Source
) -> Valid:
    """Return a mask, widened by one pixel of the coarser grid, on another grid."""
    if not mask.any():
        return np.zeros(shape, bool)
    finer = math.sqrt(abs(target[1].determinant / source[1].determinant))
    wider = ndimage.binary_dilation(
        mask, np.ones((3, 3), bool), iterations=math.ceil(max(finer, 1.0) - 1e-6)
    )
    grid = Grid(crs=target[0], transform=tuple(target[1])[:6], height=shape[0], width=shape[1])
    return resampling.ids_to_grid(wider.astype(np.uint8), source, grid, fill=1) == 1


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


def as_archived(
    stored: Pixels,
    dataset: Raster,
    *,
    scene: Scene,
    sources: Mapping[str, BandSource],
    window: Window | None = None,
    out_shape: tuple[int, int, int] | None = None,
) -> FloatArray:
    """Return bands of one file as archives store them, float32 [C, h, w].

    They are dB or digital numbers. NaN is no data: hidden by the file's own mask, or a
    value that means no data, also where other bands may have measurements.

    Args:
        stored: pixels [C, h, w] of the bands, as read from `dataset`.
        dataset: the open file.
        scene: the scene whose file it is.
        sources: the bands.
        window: as they were read.
        out_shape: as they were read.
    """
    indexes = band_indexes(dataset, sources)
    path = next(iter(sources.values())).path
    valid = dataset.read_valid(
        indexes, window, out_shape, alpha_is_data=_alpha_is_data(dataset, scene, path)
    )
    values = _as_float(stored)
    nodata = [dataset.nodata_values[index - 1] for index in indexes]
    values[_mark_no_data(values, valid, nodata, scene, sources)] = np.nan
    return values


def _as_float(stored: Pixels) -> FloatArray:
    # A float64 outlier such as -1e300 becomes infinite, which is no data as well.
    with np.errstate(over="ignore"):
        return stored.astype(np.float32)


def _alpha_is_data(dataset: Raster, scene: Scene, path: str) -> bool:
    """Return whether the item lists the file's alpha band as a band of its own.

    GDAL calls the fourth band of 8-bit files opaqueness, unless the writer says that it
    is not. So the band may be near infrared.
    """
    return any(
        source.path == path and not source.key and source.index == dataset.alpha_index
        for source in scene.bands.values()
    )


def _mark_no_data(
    values: FloatArray,
    valid: Valid,
    nodata: list[float | None],
    scene: Scene,
    sources: Mapping[str, BandSource],
) -> Valid:
    """Convert stored pixels [C, h, w] in place to dB or digital numbers, NaN = no data.

    Args:
        values: as stored, float32.
        valid: False where a mask of the file hides a pixel.
        nodata: no-data value of each band in the file.
        scene: the scene of the bands.
        sources: where the bands are stored, with their own no-data values.

    Returns:
        bool [C, h, w], True where a band has a value that means no data only if all
        bands have theirs.
    """
    fill = np.zeros(values.shape, bool)
    is_whole = bool(valid.all())
    planes = zip(values, sources.values(), nodata, strict=True)
    for number, (plane, source, of_file) in enumerate(planes):
        for value, means in _nodata_values(source, of_file, scene).items():
            found = plane == plane.dtype.type(value)
            if means == "all":
                fill[number] |= found
            else:
                plane[found] = np.nan
        if not is_whole:
            plane[~valid[number]] = np.nan
            fill[number] &= valid[number]
        if source.unit:
            plane[:] = radiometry.declared_values(plane, source.unit, source.scale, source.offset)
    return fill


def _nodata_values(
    source: BandSource, of_file: float | None, scene: Scene
) -> dict[float, NodataIn]:
    """Return the no-data values of a band, and in which bands they must stand.

    If the item does not say it (`terrapair:nodata_in`), 0 in Sentinel-2 is no data only
    where all bands are 0. A product with the 2022 offset has no measurement of 0, so
    there 0 is no data in each band on its own.
    """
    values = [value for value in (of_file, source.nodata) if value is not None]
    if scene.sensor == "s2" and not source.unit:
        values.append(0.0)
    zero_in: NodataIn = "all" if scene.sensor == "s2" and not scene.dn_offset else "any"
    return {
        value: source.nodata_in or (zero_in if value == 0 else "any")
        for value in values
        if not math.isnan(value)
    }
