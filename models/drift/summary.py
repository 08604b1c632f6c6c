"""DataSummary: the figures of a data set that are compared, with their noise.

Input: the manifest of a version, and columns of its train patches. Output: a
`DataSummary`, also as JSON. The figures of bands come from the manifest, so they are
those of all train pixels. The columns only tell how much they vary between scenes.
NumPy only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import SENSORS, ProcessingLevel, Sensor
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.reasons import PatchReason
from models.drift.patch_columns import PatchColumns

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.generic]

MIN_UNITS = 3
"""With fewer scenes, blocks are the units of the noise; with fewer blocks, patches."""
_TINY = 1e-12
_NO_DATA_REASONS: Mapping[str, Sensor] = {"s1_no_data": "s1", "s2_no_data": "s2"}


@dataclass(frozen=True, kw_only=True)
class BandSummary:
    """Figures of one band over the train pixels, in dB or reflectance.

    Attributes:
        band: name.
        mean: mean value.
        std: standard deviation.
        p02: 2nd percentile.
        p50: median.
        p98: 98th percentile.
        no_data: share of pixels without data, 0-1; 1 = the sensor is absent.
        patch_std: mean standard deviation within a patch; 0 = the sensor is absent.
        mean_error: standard error of `mean`.
        std_error: standard error of `std` as a share of it.
        patch_std_error: standard error of `patch_std` as a share of it.
    """

    band: str
    mean: float
    std: float
    p02: float
    p50: float
    p98: float
    no_data: float
    patch_std: float
    mean_error: float
    std_error: float
    patch_std_error: float


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure over the train patches.

    Attributes:
        value: mean over the patches.
        spread: standard deviation over the patches.
        error: standard error of `value`.
    """

    value: float
    spread: float
    error: float


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What is compared of a version.

    Attributes:
        kind: "pairs" or "labels".
        span: number of the data span.
        version: number of the version within the span.
        manifest_sha256: hash of its manifest.
        patch_size_px: height and width of the patches.
        pixel_size_m: ground size of a pixel, in metres.
        s2_processing_level: of the Sentinel-2 pixels.
        label_classes: label id as text -> class name; empty for pairs.
        bands: sensor -> bands in the order of the channels.
        num_units: sensor -> independent units among the train patches that were read.
        no_data: sensor -> share of pixels without data, with its noise.
        no_data_refused: sensor -> share of all patches that the build refused because
            of missing pixels.
        class_shares: class name -> share of the labelled train pixels; empty for pairs.
        time_gap_hours: Sentinel-2 time minus Sentinel-1 time; None when a sensor is
            absent.
    """

    kind: str
    span: int
    version: int
    manifest_sha256: str
    patch_size_px: int
    pixel_size_m: float
    s2_processing_level: ProcessingLevel
    label_classes: dict[str, str]
    bands: dict[str, tuple[BandSummary, ...]]
    num_units: dict[str, int]
    no_data: dict[str, Figure]
    no_data_refused: dict[str, Figure]
    class_shares: dict[str, float]
    time_gap_hours: Figure | None

    def to_json(self) -> str:
        """Return indented JSON with sorted keys."""
        values = settings.to_dict(self)
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


def from_json(text: str) -> DataSummary:
    """Return the summary that `DataSummary.to_json` wrote."""
    return settings.from_dict(DataSummary, json.loads(text), "summary")


def summarize(manifest: Manifest, columns: PatchColumns) -> DataSummary:
    """Return the figures of a version.

    Args:
        manifest: of the version.
        columns: of some of its train patches, at least one.
    """
    bands: dict[str, tuple[BandSummary, ...]] = {}
    no_data: dict[str, Figure] = {}
    num_units: dict[str, int] = {}
    for sensor in SENSORS:
        units = units_of(columns, sensor)
        num_units[sensor] = len(np.unique(units))
        bands[sensor] = _bands(manifest, columns, sensor, units)
        no_data[sensor] = _figure(1.0 - columns.valid_fraction[sensor], units)
    return DataSummary(
        kind=manifest.kind,
        span=manifest.span,
        version=manifest.version,
        manifest_sha256=manifest.sha256,
        patch_size_px=manifest.patch_size_px,
        pixel_size_m=manifest.pixel_size_m,
        s2_processing_level=manifest.s2_processing_level,
        label_classes=_classes(manifest),
        bands=bands,
        num_units=num_units,
        no_data=no_data,
        no_data_refused=_refused(manifest, num_units),
        class_shares=_class_shares(manifest),
        time_gap_hours=_time_gap(columns),
    )


def units_of(columns: PatchColumns, sensor: Sensor) -> AnyArray:
    """Return the unit of each patch whose figures vary independently, [N].

    Patches of one scene share date, angle and weather.
    """
    for candidate in (columns.scene[sensor], columns.block):
        if len(np.unique(candidate)) >= MIN_UNITS:
            return candidate
    return np.arange(len(columns))


def mean_and_error(
    values: FloatArray, weights: FloatArray, units: AnyArray
) -> tuple[FloatArray, FloatArray]:
    """Return weighted means and their standard errors over units, [C] each.

    Source: the linearized variance of a ratio of sums over clusters; Cochran 1977,
    Sampling Techniques, section 9A.

    Args:
        values: [N, C].
        weights: [N], not all 0.
        units: unit of each row, [N].
    """
    total = weights.sum()
    means = (weights[:, None] * values).sum(axis=0) / total
    index = np.unique(units, return_inverse=True)[1]
    count = int(index.max()) + 1
    residuals = np.zeros((count, values.shape[1]))
    np.add.at(residuals, index, weights[:, None] * (values - means))
    if count < 2:
        return means, np.zeros_like(means)
    return means, np.sqrt((residuals**2).sum(axis=0) * count / (count - 1)) / total


def _bands(
    manifest: Manifest, columns: PatchColumns, sensor: Sensor, units: AnyArray
) -> tuple[BandSummary, ...]:
    num_pixels = manifest.num_examples.get("train", 0) * manifest.patch_size_px**2
    zeros = np.zeros(len(manifest.bands(sensor)))
    mean_errors, std_errors, patch_stds, patch_errors = zeros, zeros, zeros, zeros
    weights = columns.valid_fraction[sensor]
    if weights.any():
        means, mean_errors = mean_and_error(columns.mean[sensor], weights, units)
        squares = columns.std[sensor] ** 2 + (columns.mean[sensor] - means) ** 2
        variances, errors = mean_and_error(squares, weights, units)
        # d log(std) = d variance / (2 variance).
        std_errors = errors / np.maximum(2.0 * variances, _TINY)
        patch_stds, errors = mean_and_error(columns.std[sensor], weights, units)
        patch_errors = errors / np.maximum(patch_stds, _TINY)
    return tuple(
        BandSummary(
            band=entry.band,
            mean=entry.mean,
            std=entry.std,
            p02=entry.p02,
            p50=entry.p50,
            p98=entry.p98,
            no_data=1.0 - entry.num_pixels / num_pixels if num_pixels else 1.0,
            patch_std=float(patch_stds[channel]),
            mean_error=float(mean_errors[channel]),
            std_error=float(std_errors[channel]),
            patch_std_error=float(patch_errors[channel]),
        )
        for channel, entry in enumerate(manifest.statistics(sensor))
    )


def _figure(values: FloatArray, units: AnyArray) -> Figure:
    means, errors = mean_and_error(values[:, None], np.ones(len(values)), units)
    return Figure(value=float(means[0]), spread=float(values.std()), error=float(errors[0]))


def _time_gap(columns: PatchColumns) -> Figure | None:
    has_both = np.all([columns.valid_fraction[sensor] > 0 for sensor in SENSORS], axis=0)
    if not has_both.any():
        return None
    units = units_of(columns, "s1")[has_both]
    found = _figure(columns.time_gap_hours[has_both], units)
    return found if math.isfinite(found.value) else None


def _refused(manifest: Manifest, num_units: Mapping[str, int]) -> dict[str, Figure]:
    """Return sensor -> share of the patches that were refused for missing pixels."""
    refused = {
        reason: count
        for reason, count in manifest.num_rejected.items()
        if reason in get_args(PatchReason)
    }
    total = sum(manifest.num_examples.values()) + sum(refused.values())
    found: dict[str, Figure] = {}
    for reason, sensor in _NO_DATA_REASONS.items():
        share = refused.get(reason, 0) / total if total else 0.0
        # Half of the error of scenes that are refused whole or not at all: a swath's
        # edge takes only a part of a scene.
        error = 0.5 * math.sqrt(share * (1.0 - share) / num_units[sensor])
        found[sensor] = Figure(value=share, spread=0.0, error=error)
    return found


def _classes(manifest: Manifest) -> dict[str, str]:
    schema = manifest.schema
    return {} if schema is None else {str(key): name for key, name in schema.classes.items()}


def _class_shares(manifest: Manifest) -> dict[str, float]:
    schema = manifest.schema
    if schema is None:
        return {}
    # Not the ignored pixels: they have no class.
    counts = manifest.num_pixels_per_class.get("train", {})
    labeled = sum(counts.get(str(key), 0) for key in schema.classes)
    return {
        name: counts.get(str(key), 0) / labeled if labeled else 0.0
        for key, name in schema.classes.items()
    }
