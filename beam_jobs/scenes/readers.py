"""Readers: check a scene against its rasters, and read any part of it on any grid.

Input: Scene and Grid. Output: float32 [H, W, C] in dB or reflectance with NaN as no
data, uint8 labels with 255 as ignore, boolean cloud masks. `beam_jobs/rasters` opens
the files, whatever their format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rasterio.windows import Window, from_bounds

from beam_jobs.contracts import labels
from beam_jobs.contracts.bands import BANDS, S2_REFLECTANCE_PER_DN, S2_VALID_RANGE, Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Pixels, Raster
from beam_jobs.scenes import footprints, radiometry, resampling
from beam_jobs.scenes.assets import BandSource, LabelSource
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene

SAMPLE_PX = 256
"""Side of the thinned-out sample in which units and offset are checked."""
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


def inspect(scene: Scene, band_names: tuple[str, ...]) -> Scene:
    """Check `scene` against its rasters; return it with grid and offset filled in.

    Args:
        scene: as parsed from its item.
        band_names: the bands that a build needs.

    Raises:
        DataError: a band or file is missing; a raster cannot be read to its end, has no
            CRS or another one than declared, lies outside the footprint, or names its
            bands differently; or the values are neither dB, digital numbers, nor what
            the item declares.
    """
    # B10 shows best whether the 2022 offset is present, even if the patches do not use
    # it.
    if "B10" in scene.bands and scene.dn_offset is None:
        band_names = tuple(dict.fromkeys((*band_names, "B10")))
    missing = [name for name in band_names if name not in scene.bands]
    if missing:
        raise DataError(
            f"{_file(scene)}: bands {missing} are missing; it has {list(scene.bands)}",
            "missing_bands",
        )
    grids = []
    for path in _by_file(scene.bands, band_names):
        with open_raster(path) as dataset:
            grids.append(_grid_of(dataset, scene))
    # Sentinel-2 has bands at 10, 20 and 60 m: the finest pixels give the scene's grid.
    grid = min(grids, key=lambda candidate: abs(candidate.transform[0]))
    checked = replace(scene, grid=grid)
    sample = _sample(checked, band_names)
    if scene.sensor == "s1":
        _check_backscatter(scene, sample)
        return checked
    return replace(checked, dn_offset=_checked_dn_offset(scene, sample, band_names))


def check_label_place(scene: Scene) -> None:
    """Check that a scene's label overlaps the scene.

    The label may be on any grid, since `read_label` resamples it.

    Raises:
        DataError: the label is missing or unreadable, has no CRS, or does not overlap
            the scene's footprint.
    """
    if scene.label is None:
        return
    with open_raster(scene.label.path) as dataset:
        if dataset.crs is None:
            raise DataError(f"{dataset.name}: the raster has no CRS", "missing_crs")
        extent = footprints.of_bounds(dataset.crs.to_string(), dataset.bounds)
    footprint = footprints.on_globe(scene.footprint)
    if not footprint.intersects(extent):
        raise DataError(
            f"{scene.label.path}: the label lies at {_degrees(extent.bounds)}, "
            f"its scene {scene.scene_id} at {_degrees(footprint.bounds)}",
            "label_elsewhere",
        )


def read_bands(scene: Scene, band_names: tuple[str, ...], grid: Grid) -> FloatArray:
    """Return physical values of an inspected scene on `grid`, float32 [H, W, C].

    NaN marks no data and pixels outside the scene; all pixels of an absent scene are
    NaN. Bands on another grid are resampled bilinearly, radar in linear power. A target
    pixel is valid only where its nearest source pixel is valid, so no data neither
    grows nor mixes with measurements.
    """
    if scene.is_absent:
        return np.full((grid.height, grid.width, len(band_names)), np.nan, np.float32)
    # Each band is contiguous in memory: writing into interleaved pixels of 12 bands
    # would take longer than all the arithmetic.
    result = np.full((len(band_names), grid.height, grid.width), np.nan, np.float32)
    for part in _stored_planes(scene, band_names, grid):
        for plane, name in zip(_ON_GRID[scene.sensor](scene, part, grid), part.names, strict=True):
            result[band_names.index(name)] = plane
    return np.moveaxis(result, 0, -1)


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


def read_label(source: LabelSource, target_schema: str, grid: Grid) -> npt.NDArray[np.uint8]:
    """Return the label on `grid` in ids of `target_schema`, uint8 [H, W], 255 = ignore.

    The file may have another CRS, pixel size and extent than the images. Each pixel
    takes the id of the label pixel that contains its centre: class ids cannot be
    interpolated. Pixels outside the file are 255.

    Raises:
        DataError: an id is not in the source's schema, a schema is unknown, or no remap
            exists between the two schemas.
    """
    with open_raster(source.path) as dataset:
        pixels, source_grid = _read_window(dataset, [1], grid)
        nodata = dataset.nodata if source.nodata is None else source.nodata
    stored = pixels[0] if pixels.size else np.zeros((0, 0))
    unlabeled = ~np.isfinite(stored.astype(np.float64)) | (stored == labels.IGNORE)
    if nodata is not None:
        unlabeled |= stored == nodata
    try:
        schema = labels.get_schema(source.schema)
        values = np.where(unlabeled, labels.IGNORE, stored)
        if values.size and (values.min() < 0 or values.max() > labels.IGNORE):
            raise ValueError(f"label ids must lie in 0-255, got {values.min()} to {values.max()}")
        remapped = labels.remap(values.astype(np.uint8), schema, labels.get_schema(target_schema))
    except ValueError as error:
        raise DataError(f"{source.path}: {error}", "label_id_outside_schema") from error
    return resampling.ids_to_grid(remapped, source_grid, grid, fill=labels.IGNORE)


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
        pixels, source_grid = _read_window(dataset, [1], grid)
    mask = (
        (~np.isin(pixels[0], clear_values)).astype(np.uint8)
        if pixels.size
        else np.zeros((0, 0), np.uint8)
    )
    return resampling.ids_to_grid(mask, source_grid, grid, fill=1) == 1


def _file(scene: Scene) -> str:
    return next(iter(scene.bands.values())).path


def _by_file(
    bands: Mapping[str, BandSource], names: tuple[str, ...]
) -> dict[str, dict[str, BandSource]]:
    """Group the wanted bands by file, so that each file is opened once."""
    files: dict[str, dict[str, BandSource]] = {}
    for name in names:
        files.setdefault(bands[name].path, {})[name] = bands[name]
    return files


def _stored_planes(scene: Scene, band_names: tuple[str, ...], grid: Grid) -> Iterator[_Planes]:
    """Yield the wanted bands as archives store them, one _Planes per source grid.

    Files on the same grid are joined: with one file per polarization, the fill value 0
    can be told from a measured 0 dB only by looking at all polarizations together.
    """
    parts: dict[tuple[Any, ...], list[tuple[list[str], FloatArray]]] = {}
    for path, sources in _by_file(scene.bands, band_names).items():
        with open_raster(path) as dataset:
            pixels, source_grid = _read_window(dataset, _indexes(dataset, sources), grid)
        values = _as_archived(pixels.astype(np.float32), dataset.nodata, sources)
        if values.size:
            parts.setdefault((*source_grid, values.shape[1:]), []).append((list(sources), values))
    for (crs, transform, _), found in parts.items():
        names = [name for part, _ in found for name in part]
        planes = [values for _, values in found]
        values = planes[0] if len(planes) == 1 else np.concatenate(planes)
        yield _Planes(names=names, values=values, source=(crs, transform))


def _indexes(dataset: Raster, sources: Mapping[str, BandSource]) -> list[int]:
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


def _as_archived(pixels: Pixels, nodata: float | None, sources: Mapping[str, BandSource]) -> Pixels:
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


def _grid_of(dataset: Raster, scene: Scene) -> Grid:
    if dataset.crs is None:
        raise DataError(f"{dataset.name}: the raster has no CRS", "missing_crs")
    if (
        scene.declared_crs is not None
        and _parse_crs(scene.declared_crs, dataset.name) != dataset.crs
    ):
        raise DataError(
            f"{dataset.name}: CRS must be the catalog's {scene.declared_crs}, "
            f"the raster has {dataset.crs.to_string()}",
            "wrong_crs",
        )
    footprint = footprints.on_globe(scene.footprint)
    extent = footprints.of_bounds(dataset.crs.to_string(), dataset.bounds)
    if not footprint.intersects(extent):
        raise DataError(
            f"{dataset.name}: lies at {_degrees(extent.bounds)}, "
            f"its catalog footprint at {_degrees(footprint.bounds)}",
            "wrong_crs",
        )
    return Grid(
        crs=dataset.crs.to_string(),
        transform=tuple(dataset.transform)[:6],
        height=dataset.height,
        width=dataset.width,
    )


def _parse_crs(text: str, file: str) -> CRS:
    try:
        return CRS.from_string(text)
    except ValueError as error:
        raise DataError(
            f"{file}: its catalog has an unknown CRS, {text!r}: {error}", "wrong_crs"
        ) from error


def _degrees(bounds: tuple[float, ...]) -> str:
    return "lon {0:.3f} to {2:.3f}, lat {1:.3f} to {3:.3f}".format(*bounds)


def _sample(scene: Scene, band_names: tuple[str, ...]) -> npt.NDArray[Any]:
    """Return a thinned-out copy [C, h, w] of the whole scene, NaN = no data.

    Values are as archives store them; each side has at most SAMPLE_PX pixels. The last
    row is also read at full size, so that a truncated file fails here, before any patch
    is cut.
    """
    planes = []
    shape_px = None
    for path, sources in _by_file(scene.bands, band_names).items():
        with open_raster(path) as dataset:
            shape_px = shape_px or (min(dataset.height, SAMPLE_PX), min(dataset.width, SAMPLE_PX))
            # The thinned-out read may skip the last rows, or use overviews, which may
            # be stored before the pixels.
            last_row = Window(0, dataset.height - 1, dataset.width, 1)
            indexes = _indexes(dataset, sources)
            dataset.read(indexes, window=last_row)
            # Read all bands in one call: a file with interleaved bands is decoded
            # completely for each call.
            stored = dataset.read(indexes, out_shape=(len(indexes), *shape_px)).astype(np.float64)
            stored = _as_archived(stored, dataset.nodata, sources)
            planes += [
                (band_names.index(name), values)
                for name, values in zip(sources, stored, strict=True)
            ]
    return np.stack([values for _, values in sorted(planes, key=lambda plane: plane[0])])


def _check_backscatter(scene: Scene, sample: npt.NDArray[Any]) -> None:
    cleaned = radiometry.clean_backscatter_db(sample, is_zero_missing=not scene.declares_units)
    if not np.isfinite(cleaned).any():
        raise DataError(f"{_file(scene)}: no pixel holds a measurement", "no_valid_pixel")
    if radiometry.looks_like_power(cleaned):
        low, high = float(np.nanmin(cleaned)), float(np.nanmax(cleaned))
        raise DataError(
            f"{_file(scene)}: backscatter must be in dB, but all values are >= 0 "
            f"({low:.3g} to {high:.3g}): this is linear power; "
            "declare terrapair:unit power in its STAC item",
            "s1_not_db",
        )


def _checked_dn_offset(scene: Scene, sample: npt.NDArray[Any], band_names: tuple[str, ...]) -> int:
    """Return the declared offset, or the one that the pixels show."""
    valid = sample[sample > 0]
    if not valid.size:
        raise DataError(f"{_file(scene)}: no pixel holds a measurement", "no_valid_pixel")
    if valid.max() < 16:
        raise DataError(
            f"{_file(scene)}: Sentinel-2 must be digital numbers (reflectance x 10000), "
            f"but the largest is {valid.max():.3g}",
            "s2_not_dn",
        )
    if scene.declares_units:
        _check_declared_reflectance(scene, valid)
        return 0
    if scene.dn_offset is not None:
        return scene.dn_offset
    offset = radiometry.detect_dn_offset(np.nan_to_num(sample), band_names)
    if offset is None:
        raise DataError(
            f"{_file(scene)}: cannot tell whether the 2022 offset of 1000 is in it "
            f"(smallest value {valid.min():.0f}); "
            "declare terrapair:dn_offset (0 or 1000) in its STAC item",
            "unknown_dn_offset",
        )
    return offset


def _check_declared_reflectance(scene: Scene, valid: npt.NDArray[Any]) -> None:
    """Check that the declared scale and offset give a plausible reflectance.

    If the scale is forgotten, every pixel falls outside the valid range and all patches
    would look empty.
    """
    typical = float(np.median(valid)) * S2_REFLECTANCE_PER_DN
    if typical > S2_VALID_RANGE[1]:
        raise DataError(
            f"{_file(scene)}: reflectance must be at most {S2_VALID_RANGE[1]}, "
            f"but raster:scale and raster:offset make its median {typical:.3g}",
            "s2_not_reflectance",
        )


def _read_window(
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
