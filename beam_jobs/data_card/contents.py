"""Contents: what the shards of a version hold, counted: when, where, how bright, how good. What the data card shows.

Input: serialized tf.Examples of the shards. Output: whole numbers only, so that the
same shards give the same card in any order of adding. `writers.py` counts while it
writes, `data_card.py` counts finished shards again.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts.bands import (
    S1_NODATA,
    S1_VALID_RANGE_DB,
    S2_NODATA,
    S2_VALID_RANGE,
    SENSORS,
    Sensor,
)
from beam_jobs.contracts.records import HOLDOUT_MARK, SCORES

CELL_DEGREES = 0.5
"""Side of the cells in which places are counted: those of `land.py`."""
NUM_SCORE_BINS = 20
OFFSET_BIN_PX = 0.25
NUM_BINS: dict[Sensor, int] = {"s1": 110, "s2": 263}
"""Bins of 1 dB over the valid range; of 0.025 reflectance, of which the last one is narrower."""
_DN_PER_BIN: dict[Sensor, int] = {"s1": 100, "s2": 250}
_STORED: dict[Sensor, tuple[str, int, int]] = {
    "s1": ("<i2", S1_NODATA, round(S1_VALID_RANGE_DB[0] * 100)),
    "s2": ("<u2", S2_NODATA, 0),
}
_PIXEL_STEP = 4
"""Every 4th row and column: a sixteenth of the pixels shows a distribution as well and costs little beside compressing."""


@dataclass(kw_only=True)
class Contents:
    """Counts over patches.

    Attributes:
        num_examples: split -> patches.
        num_held_out: (hold-out, split) -> patches.
        num_absent: (sensor, split) -> patches without a scene of that sensor.
        acquired_at: sensor -> [first, last], seconds since 1970, UTC.
        months: "2020-03" of the Sentinel-1 date -> patches.
        cells: (row of CELL_DEGREES from the south pole, column from 180 degrees west)
            -> patches.
        gaps: whole hours of S2 - S1, rounded down -> patches.
        offsets: bins of OFFSET_BIN_PX, -1 = not measured -> patches.
        scores: (name of SCORES, bin of NUM_SCORE_BINS or -1 = not known) -> patches.
        bands: sensor -> int64 [C, NUM_BINS] over a sixteenth of the valid pixels.
    """

    num_examples: Counter[str] = field(default_factory=Counter)
    num_held_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    num_absent: Counter[tuple[str, str]] = field(default_factory=Counter)
    acquired_at: dict[str, list[int]] = field(default_factory=dict)
    months: Counter[str] = field(default_factory=Counter)
    cells: Counter[tuple[int, int]] = field(default_factory=Counter)
    gaps: Counter[int] = field(default_factory=Counter)
    offsets: Counter[int] = field(default_factory=Counter)
    scores: Counter[tuple[str, int]] = field(default_factory=Counter)
    bands: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def add(self, split: str, serialized: bytes) -> None:
        """One more patch, as a shard holds it."""
        feature = tf.train.Example.FromString(serialized).features.feature
        self.num_examples[split] += 1
        for name in feature["block"].bytes_list.value[0].decode().split(HOLDOUT_MARK)[1:]:
            self.num_held_out[name, split] += 1
        there = [sensor for sensor in SENSORS if feature[f"{sensor}_scene_id"].bytes_list.value[0]]
        for sensor in there:
            at = feature[f"{sensor}_acquired_at"].int64_list.value[0]
            self._widen(sensor, at, at)
        self.num_absent.update((sensor, split) for sensor in SENSORS if sensor not in there)
        at = feature["s1_acquired_at"].int64_list.value[0]
        self.months[datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m")] += 1
        lon, lat = (feature[name].float_list.value[0] for name in ("lon", "lat"))
        self.cells[
            math.floor((lat + 90.0) / CELL_DEGREES), math.floor((lon + 180.0) / CELL_DEGREES)
        ] += 1
        # One scene alone has no gap; its record says 0.
        if len(there) == len(SENSORS):
            self.gaps[math.floor(feature["time_gap_hours"].float_list.value[0])] += 1
        offset_px = feature["offset_px"].float_list.value[0]
        self.offsets[-1 if math.isnan(offset_px) else math.floor(offset_px / OFFSET_BIN_PX)] += 1
        for name in SCORES:
            if name in feature:
                score = feature[name].float_list.value[0]
                known = not math.isnan(score)
                self.scores[
                    name, min(int(score * NUM_SCORE_BINS), NUM_SCORE_BINS - 1) if known else -1
                ] += 1
        shape = [feature[name].int64_list.value[0] for name in ("height", "width")]
        for sensor in SENSORS:
            counted = _histogram(feature[sensor].bytes_list.value[0], shape, sensor)
            self.bands[sensor] = self.bands[sensor] + counted if sensor in self.bands else counted

    def merge(self, other: Contents) -> None:
        """Adds the counts of `other`."""
        for name in (
            "num_examples",
            "num_held_out",
            "num_absent",
            "months",
            "cells",
            "gaps",
            "offsets",
            "scores",
        ):
            getattr(self, name).update(getattr(other, name))
        for sensor, (first, last) in other.acquired_at.items():
            self._widen(sensor, first, last)
        for sensor, counted in other.bands.items():
            self.bands[sensor] = self.bands[sensor] + counted if sensor in self.bands else counted

    def _widen(self, sensor: str, first: int, last: int) -> None:
        known = self.acquired_at.setdefault(sensor, [first, last])
        known[:] = [min(known[0], first), max(known[1], last)]


def bin_edges(sensor: Sensor) -> tuple[float, float]:
    """(lower edge of the first bin, width of a bin), dB or reflectance."""
    return (S1_VALID_RANGE_DB[0], 1.0) if sensor == "s1" else (S2_VALID_RANGE[0], 0.025)


def _histogram(raw: bytes, shape: list[int], sensor: Sensor) -> npt.NDArray[np.int64]:
    """int64 [C, NUM_BINS] of stored pixels."""
    dtype, nodata, lowest = _STORED[sensor]
    pixels = np.frombuffer(raw, dtype).reshape(*shape, -1)[::_PIXEL_STEP, ::_PIXEL_STEP]
    pixels = pixels.reshape(-1, pixels.shape[-1])
    num_bins, channels = NUM_BINS[sensor], pixels.shape[-1]
    bins = np.clip((pixels.astype(np.int64) - lowest) // _DN_PER_BIN[sensor], 0, num_bins - 1)
    # One count for all bands: each has its own range of numbers.
    bins += np.arange(channels) * num_bins
    counted = np.bincount(bins[pixels != nodata], minlength=channels * num_bins)
    return counted.reshape(channels, num_bins)
