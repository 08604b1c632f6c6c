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

from beam_jobs.contracts.bands import (
    S2_BASELINE_0400_DN_OFFSET,
    S2_REFLECTANCE_PER_DN,
    S2_VALID_RANGE,
)
from beam_jobs.contracts.reasons import Refusal
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster
from beam_jobs.rasters.raster import Raster
from beam_jobs.rasters.sources import parse_crs
from beam_jobs.scenes import footprints, plausibility, radiometry, readers, samples
from beam_jobs.scenes.grids import Grid, is_singular, lonlat_bounds
from beam_jobs.scenes.scene import Scene

MIN_MEASURED_PX = 4096
"""If the windows hold fewer measurements, the scene is searched for other places."""
_DECLARE_OFFSET = "declare terrapair:dn_offset (0 or 1000) in its STAC item"


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
    grid = min(grids, key=lambda candidate: abs(candidate.affine.determinant))
    checked = replace(scene, grid=grid)
    sample = _sample(checked, band_names)
    if scene.sensor == "s1":
        _check_backscatter(scene, sample, band_names)
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
    if not np.isfinite(dataset.bounds).all() or is_singular(dataset.transform):
        raise DataError(
            f"{dataset.name}: its pixels have no place: the transform is "
            f"{tuple(dataset.transform)[:6]}",
            "missing_crs",
        )
    if not np.isfinite(lonlat_bounds(dataset.crs.to_string(), dataset.bounds)).all():
        raise DataError(
            f"{dataset.name}: its bounds {tuple(dataset.bounds)} lie outside of "
            f"{dataset.crs.to_string()}",
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


def _sample(scene: Scene, band_names: tuple[str, ...]) -> samples.Sample:
    """Return full-resolution pixels of the scene, from where it has data."""
    sample = samples.read(scene, band_names)
    is_whole = not any(any(plane.cut) for plane in sample.planes)
    num_measured = sum(
        int(samples.measured(plane.values, scene).any(axis=0).sum()) for plane in sample.planes
    )
    if is_whole or num_measured >= MIN_MEASURED_PX:
        return sample
    positions = samples.positions_with_data(scene, band_names)
    return samples.read(scene, band_names, positions) if positions else sample


def _check_backscatter(scene: Scene, sample: samples.Sample, band_names: tuple[str, ...]) -> None:
    planes = {name: sample.of_band(name) for name in band_names}
    # Zeros in all polarizations are a fill value, not 0 dB.
    for plane in sample.planes:
        if not scene.declares_units:
            plane.values[:, (plane.values == 0.0).all(axis=0)] = np.nan
    refusal = None
    if any(scene.bands[name].unit == "power" for name in band_names):
        refusal = plausibility.negative_power_refusal(planes)
    if refusal is None:
        refusal = plausibility.unit_refusal(planes, is_declared=scene.declares_units)
    if refusal is None and not scene.polarizations_checked:
        refusal = plausibility.swap_refusal(planes)
    _raise(scene, refusal)
    values = np.concatenate([window.ravel() for windows in planes.values() for window in windows])
    _check_measured(scene, values[radiometry.is_backscatter_db(values)])


def _checked_dn_offset(scene: Scene, sample: samples.Sample, band_names: tuple[str, ...]) -> int:
    """Return the declared offset, or the one that the pixels show.

    What the catalog says about the product must agree with the pixels. It decides where
    they cannot.
    """
    if scene.declares_units:
        positive = np.concatenate(
            [window[window > 0] for name in band_names for window in sample.of_band(name)]
        )
        _check_measured(scene, positive)
        _check_declared_reflectance(scene, positive)
        return 0
    values = {
        name: np.concatenate([window[radiometry.is_dn(window)] for window in sample.of_band(name)])
        for name in band_names
    }
    _check_measured(scene, np.concatenate(list(values.values())))
    _raise(scene, plausibility.digital_number_refusal(values, sample.dtypes))
    if scene.dn_offset is not None:
        return scene.dn_offset
    inner = samples.away_from_gaps(sample, scene)
    dn = np.zeros((len(inner), max(band.size for band in inner.values())), np.float32)
    for row, band in zip(dn, inner.values(), strict=True):
        row[: band.size] = band
    shown = radiometry.detect_dn_offset(dn, tuple(inner))
    expected, why = _expected_dn_offset(scene)
    if shown is None and expected == 0 and radiometry.begins_at_offset(dn):
        shown = S2_BASELINE_0400_DN_OFFSET
    if shown is None and expected is None:
        _raise(
            scene,
            (
                "unknown_dn_offset",
                "cannot tell whether the 2022 offset of 1000 is in it (smallest value "
                f"{min(float(band.min()) for band in values.values() if band.size):.0f}); "
                f"{_DECLARE_OFFSET}",
            ),
        )
    if shown is not None and expected is not None and shown != expected:
        _raise(
            scene,
            (
                "unknown_dn_offset",
                f"{why} means an offset of {expected} in the digital numbers, "
                f"but the pixels show {shown}; {_DECLARE_OFFSET}",
            ),
        )
    return shown if shown is not None else int(expected or 0)


def _expected_dn_offset(scene: Scene) -> tuple[int | None, str]:
    """Return the offset that the catalog's fields mean, and the field; None = unknown.

    Processors outside of ESA's ground segment write the baseline 99.99, which says
    nothing about the offset.

    Source: ESA, Sentinel-2 Products Specification Document, RADIO_ADD_OFFSET and
    BOA_ADD_OFFSET from baseline 04.00 on.
    """
    if scene.is_offset_applied:
        return 0, "earthsearch:boa_offset_applied true"
    baseline = scene.processing_baseline
    if baseline is None or baseline.startswith("99."):
        return None, ""
    has_offset = baseline >= "04.00"
    return S2_BASELINE_0400_DN_OFFSET * has_offset, f"processing baseline {baseline}"


def _check_declared_reflectance(scene: Scene, valid: npt.NDArray[Any]) -> None:
    """Check that the declared scale and offset give a plausible reflectance.

    If the scale is forgotten, nearly every pixel falls outside the valid range and all
    patches would look empty.
    """
    typical = float(np.median(valid)) * S2_REFLECTANCE_PER_DN
    if typical > S2_VALID_RANGE[1]:
        raise DataError(
            f"{_file(scene)}: reflectance must be at most {S2_VALID_RANGE[1]}, "
            f"but raster:scale and raster:offset make its median {typical:.3g}",
            "s2_not_reflectance",
        )
    brightest = float(valid.max())
    if brightest < plausibility.MIN_DN:
        least = plausibility.MIN_DN * S2_REFLECTANCE_PER_DN
        raise DataError(
            f"{_file(scene)}: reflectance must reach {least:g} somewhere, "
            "but raster:scale and raster:offset make its largest "
            f"{brightest * S2_REFLECTANCE_PER_DN:.3g}",
            "s2_not_reflectance",
        )


def _check_measured(scene: Scene, values: npt.NDArray[Any]) -> None:
    if not values.size:
        raise DataError(f"{_file(scene)}: no pixel holds a measurement", "no_valid_pixel")


def _raise(scene: Scene, refusal: Refusal | None) -> None:
    """Raise the DataError of a refusal, which names the scene's file."""
    if refusal is not None:
        reason, detail = refusal
        raise DataError(f"{_file(scene)}: {detail}", reason)
