"""Inspection: check a scene against its rasters before any patch is cut.

Input: a Scene as parsed from its item. Output: the Scene with its grid and its
processing offset, or a DataError with the rule that its files break.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.windows import Window

from beam_jobs.contracts.bands import S2_REFLECTANCE_PER_DN, S2_VALID_RANGE
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Raster
from beam_jobs.rasters.sources import parse_crs
from beam_jobs.scenes import footprints, radiometry, readers
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene

SAMPLE_PX = 256
"""Side of the thinned-out sample in which units and offset are checked."""


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
    for path in readers.by_file(scene.bands, band_names):
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


def _file(scene: Scene) -> str:
    return next(iter(scene.bands.values())).path


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
            f"{dataset.name}: lies at {footprints.degrees(extent.bounds)}, "
            f"its catalog footprint at {footprints.degrees(footprint.bounds)}",
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
        return parse_crs(text)
    except ValueError as error:
        raise DataError(
            f"{file}: its catalog has an unknown CRS, {text!r}: {error}", "wrong_crs"
        ) from error


def _sample(scene: Scene, band_names: tuple[str, ...]) -> npt.NDArray[Any]:
    """Return a thinned-out copy [C, h, w] of the whole scene, NaN = no data.

    Values are as archives store them; each side has at most SAMPLE_PX pixels. The last
    row is also read at full size, so that a truncated file fails here, before any patch
    is cut.
    """
    planes = []
    shape_px = None
    for path, sources in readers.by_file(scene.bands, band_names).items():
        with open_raster(path) as dataset:
            shape_px = shape_px or (min(dataset.height, SAMPLE_PX), min(dataset.width, SAMPLE_PX))
            # The thinned-out read may skip the last rows, or use overviews, which may
            # be stored before the pixels.
            last_row = Window(0, dataset.height - 1, dataset.width, 1)
            indexes = readers.band_indexes(dataset, sources)
            dataset.read(indexes, window=last_row)
            # Read all bands in one call: a file with interleaved bands is decoded
            # completely for each call.
            stored = dataset.read(indexes, out_shape=(len(indexes), *shape_px)).astype(np.float64)
            stored = readers.as_archived(stored, dataset.nodata, sources)
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
