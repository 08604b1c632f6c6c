"""Patches: cut a pair of scenes on their common grid, and judge each patch.

Input: a PairTask: two inspected scenes and a strip of their grid. Output: a PairedPatch
or LabeledPatch with its split, or a Rejection. Pure functions apart from reading
rasters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.config import BuildConfig, LabelConfig
from beam_jobs.contracts import labels
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.reasons import Reason
from beam_jobs.contracts.records import FloatArray, LabeledPatch, PairedPatch, make_patch_id
from beam_jobs.judging import quality, registration, splits
from beam_jobs.judging.pairing import time_gap_hours
from beam_jobs.scenes import grids, label_rasters, label_vectors, readers
from beam_jobs.scenes.grids import Grid, PatchWindow
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.scene import OTHER_SENSOR, Scene


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A scene or patch that is not used, and why.

    Attributes:
        kind: "scenes" or "patches": the file in `rejected/` that lists it.
        id: of the scene or patch.
        reason: one of `contracts.reasons`.
        detail: one line with the rule and the value.
        is_error: whether the input breaks a rule, which counts towards
            max_rejected_fraction; otherwise it was only not selected.
    """

    kind: str
    id: str
    reason: Reason
    detail: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class OutOfRange:
    """Pixels of a strip whose values no measurement can have, such as inf or -1e30.

    They are no data. `num_pixels` is (sensor, band) -> their number on the strip.
    """

    num_pixels: Counter[tuple[Sensor, str]]


Outcome = tuple[str, PairedPatch] | Rejection | OutOfRange
"""What `cut` yields: (split, patch), or one of the others."""


@dataclass(frozen=True, kw_only=True)
class PairTask:
    """A strip of the common grid of two scenes, one of which may be absent.

    It is the unit of work that a killed job does not repeat.
    """

    s1: Scene
    s2: Scene
    strip: Grid

    def scene(self, sensor: Sensor) -> Scene:
        """Return the scene of `sensor`."""
        return {"s1": self.s1, "s2": self.s2}[sensor]

    @property
    def scene_id(self) -> str:
        """The id of the Sentinel-1 scene, or of the only scene there is."""
        return self.s1.scene_id or self.s2.scene_id

    @property
    def is_alone(self) -> bool:
        """Whether one of the two scenes is absent."""
        return self.s1.is_absent or self.s2.is_absent

    @property
    def task_id(self) -> str:
        """The name of the task within a job."""
        return f"{self.s1.scene_id}|{self.s2.scene_id}|{self.strip.transform}|{self.strip.height}"


@dataclass(kw_only=True)
class _Strip:
    """The pixels of a strip.

    Attributes:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance, float32 [H, W, C2], NaN = no data.
        cloud_mask: bool [H, W], True = cloud; None without a mask.
        label: uint8 [H, W], 255 = ignore; None in a build without labels.
        is_weak: whether the label is weak.
        num_out_of_range: (sensor, band) -> number of pixels whose value no measurement
            can have; they are no data.
    """

    s1: FloatArray
    s2: FloatArray
    cloud_mask: npt.NDArray[np.bool_] | None
    label: npt.NDArray[np.uint8] | None
    is_weak: bool
    num_out_of_range: Counter[tuple[Sensor, str]]


def tasks(s1: Scene, s2: Scene, config: BuildConfig) -> list[PairTask]:
    """Return the strips of a pair; none if the scenes share less than one patch."""
    if s1.grid is None or s2.grid is None:
        raise ValueError(
            f"scenes must be inspected before they are cut: {s1.scene_id}, {s2.scene_id}"
        )
    grid = grids.common_grid(s2.grid, s1.grid, config.patch.pixel_size_m)
    if grid is None or grid.width < config.patch.size_px:
        return []
    return [
        PairTask(s1=s1, s2=s2, strip=strip) for strip in grids.strips(grid, config.patch.size_px)
    ]


def cut(task: PairTask, config: BuildConfig) -> Iterator[Outcome]:
    """Yield (split, patch) for every patch that is kept, else a Rejection.

    At last, OutOfRange is yielded if any value is.

    Raises:
        DataError: a raster or a label breaks a rule.
    """
    pixels = _read(task, config)
    for window in grids.patch_windows(task.strip, config.patch.size_px):
        yield _patch(task, pixels, window, config)
    if pixels.num_out_of_range:
        yield OutOfRange(num_pixels=pixels.num_out_of_range)


def _read(task: PairTask, config: BuildConfig) -> _Strip:
    label, is_weak = None, False
    if config.label is not None:
        source = task.scene(config.label.label_from).label
        if source is None:
            raise ValueError(f"{task.task_id}: scene without label was not filtered out")
        label = _read_label(task, source, config.label)
        is_weak = source.kind == "weak"
    mask, index, clear_values = (
        task.s2.cloud_mask,
        task.s2.cloud_mask_index,
        task.s2.clear_values,
    )
    num_out_of_range: Counter[tuple[Sensor, str]] = Counter()

    def read(sensor: Sensor) -> FloatArray:
        counts: Counter[str] = Counter()
        pixels = readers.read_bands(
            task.scene(sensor), config.patch.bands(sensor), task.strip, num_out_of_range=counts
        )
        num_out_of_range.update({(sensor, name): count for name, count in counts.items()})
        return pixels

    return _Strip(
        s1=read("s1"),
        s2=read("s2"),
        cloud_mask=readers.read_cloud_mask(mask, task.strip, clear_values, index) if mask else None,
        label=label,
        is_weak=is_weak,
        num_out_of_range=num_out_of_range,
    )


def _read_label(task: PairTask, source: LabelSource, config: LabelConfig) -> npt.NDArray[np.uint8]:
    """Return the label of the strip, uint8 [H, W] in ids of the build, 255 = ignore."""
    if source.vector is None:
        label = label_rasters.read(source, config.target, task.strip)
    else:
        acquired_at = task.scene(config.label_from).acquired_at
        label = label_vectors.read(source, config.target, task.strip, acquired_at)
    return labels.ignore(label, config.label_schema, config.ignore)


def _measure(task: PairTask, s1: FloatArray, s2: FloatArray, clouds: float) -> quality.Parts:
    """Return the parts of a patch except its shift.

    A sensor without a scene gets a valid fraction of NaN, which never fails.
    """
    parts = quality.measure(s1, s2, clouds, time_gap_hours(task.s1, task.s2))
    absent = [f"{scene.sensor}_valid_fraction" for scene in (task.s1, task.s2) if scene.is_absent]
    return replace(parts, **dict.fromkeys(absent, math.nan))


def _label_weight(pixels: _Strip, config: BuildConfig) -> float:
    """Return the factor that the label adds to a patch's weight, 0-1."""
    return config.label.weak_weight if config.label is not None and pixels.is_weak else 1.0


def _event(task: PairTask, config: BuildConfig) -> str:
    """Return the event of the scene with the label, or else of the other scene."""
    sensor = config.label.label_from if config.label else "s1"
    return task.scene(sensor).event or task.scene(OTHER_SENSOR[sensor]).event


def _patch(
    task: PairTask, pixels: _Strip, placed: PatchWindow, config: BuildConfig
) -> tuple[str, PairedPatch] | Rejection:
    """Return one patch of a strip with its split, or why it is refused."""
    window, grid = placed.pixels, placed.grid
    # Bands of the strip are separate planes. Interleave them once, since a patch is
    # read many times pixel by pixel.
    s1, s2 = np.ascontiguousarray(pixels.s1[window]), np.ascontiguousarray(pixels.s2[window])
    patch_id = make_patch_id(
        task.s1.scene_id,
        task.s2.scene_id,
        crs=grid.crs,
        xmin=grid.transform[2],
        ymax=grid.transform[5],
        size_px=grid.height,
    )
    lon, lat = grids.centre_and_corners(grid)
    declared = frozenset(scene.split for scene in (task.s1, task.s2) if scene.split is not None)
    place = splits.assign(
        lon.tolist(), lat.tolist(), config.split, declared, task.s1.holdouts | task.s2.holdouts
    )
    clouds = quality.cloud_fraction(
        None if pixels.cloud_mask is None else pixels.cloud_mask[window], s2, task.s2.cloud_fraction
    )
    parts = _measure(task, s1, s2, clouds)
    judged = quality.without_unused(parts, config.label)
    refusal = quality.refusal(judged, config.quality)
    if refusal is None and config.label is not None and pixels.label is not None:
        refusal = quality.label_refusal(pixels.label[window], config.label.min_labeled_fraction)
    if refusal is None:
        refusal = place.refusal
    if refusal is None and config.label is not None:
        refusal = quality.label_kind_refusal(pixels.is_weak, config.label.weak_only, place.split)
    # Measured last, and only if the patch is otherwise kept, since it costs most.
    if refusal is None and config.quality.measure_offset and not task.is_alone:
        offset = registration.measure_offset(s1, s2, config.patch.s2_bands)
        parts = replace(parts, offset_px=offset.length_px if offset else math.nan)
        judged = quality.without_unused(parts, config.label)
        refusal = quality.offset_refusal(judged.offset_px, config.quality.max_offset_px)
    score = quality.score(judged, config.pairing, config.quality)
    refusal = refusal or quality.score_refusal(score, config.quality)
    if refusal is not None:
        reason, detail = refusal
        return Rejection(
            kind="patches", id=patch_id, reason=reason, detail=f"{task.scene_id}: {detail}"
        )
    if place.split is None:
        raise ValueError(f"{patch_id}: has neither a split nor a reason to be left out: {place}")
    values: dict[str, Any] = {
        "patch_id": patch_id,
        "s1": s1,
        "s2": s2,
        "lon": float(lon[0]),
        "lat": float(lat[0]),
        "block": place.block,
        "s1_scene_id": task.s1.scene_id,
        "s2_scene_id": task.s2.scene_id,
        "s1_acquired_at": task.s1.acquired_at,
        "s2_acquired_at": task.s2.acquired_at,
        "orbit_state": task.s1.orbit_state,
        "cloud_fraction": clouds,
        "offset_px": parts.offset_px,
        "edge_noise_fraction": parts.edge_noise_fraction,
        "saturated_fraction": parts.saturated_fraction,
        "quality": score,
        "weight": quality.weight(score, config.quality) * _label_weight(pixels, config),
        "event": _event(task, config),
    }
    if pixels.label is None:
        return place.split, PairedPatch(**values)
    return place.split, LabeledPatch(**values, label=pixels.label[window])
