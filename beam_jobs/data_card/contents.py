"""Counts over the patches in the shards: time, place, brightness and quality.

Input: serialized tf.Examples of the shards. Output: the counts that the data card
shows. All of them are integers, so the same shards give the same card in any order.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts.bands import PIXEL_FORMATS, SENSORS, Sensor
from beam_jobs.contracts.records import HOLDOUT_MARK, SCORES

CELL_DEGREES = 0.5
"""Side of the cells in which places are counted; the same as in `land.py`."""
NUM_SCORE_BINS = 20
"""Number of bins over 0-1 in which scores are counted."""
OFFSET_BIN_PX = 0.25
"""Width of the bins in which measured shifts are counted, in pixels."""
BIN_WIDTH: dict[Sensor, float] = {"s1": 1.0, "s2": 0.025}
"""Width of the bins in which pixels are counted, in dB and in reflectance."""
NUM_BINS: dict[Sensor, int] = {"s1": 110, "s2": 263}
"""Number of those bins over the valid range; the last one of "s2" is narrower."""
MAX_BLOCKS = 100
"""Number of blocks of a split that are told apart; a world of pairs has a million."""
_PIXEL_STEP = 4
"""Only every 4th row and column is counted.

A sixteenth of the pixels shows the same distribution, and counting them takes little
time compared with the compression.
"""


@dataclass(kw_only=True)
class Contents:
    """Counts over patches.

    Attributes:
        num_examples: split -> number of patches.
        num_held_out: (hold-out, split) -> number of patches.
        blocks: split -> ids of its blocks, sorted; of more than `MAX_BLOCKS` the first.
        num_absent: (sensor, split) -> number of patches without a scene of that sensor.
        acquired_at: sensor -> [first, last], seconds since 1970, UTC.
        months: month of the Sentinel-1 date, such as "2020-03" -> number of patches.
        cells: (row, column) of the cell -> number of patches. Rows count from the south
            pole, columns from 180 degrees west.
        gaps: Sentinel-2 time minus Sentinel-1 time in whole hours, rounded down ->
            number of patches.
        offsets: number of the bin of the shift, or -1 = not measured -> number of
            patches.
        scores: (name of a score, number of its bin or -1 = not known) -> number of
            patches.
        bands: sensor -> histograms int64 [C, NUM_BINS] of a sixteenth of the valid
            pixels.
    """

    num_examples: Counter[str] = field(default_factory=Counter)
    num_held_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    blocks: dict[str, list[str]] = field(default_factory=dict)
    num_absent: Counter[tuple[str, str]] = field(default_factory=Counter)
    acquired_at: dict[str, list[int]] = field(default_factory=dict)
    months: Counter[str] = field(default_factory=Counter)
    cells: Counter[tuple[int, int]] = field(default_factory=Counter)
    gaps: Counter[int] = field(default_factory=Counter)
    offsets: Counter[int] = field(default_factory=Counter)
    scores: Counter[tuple[str, int]] = field(default_factory=Counter)
    bands: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)

    def add(self, split: str, serialized: bytes) -> None:
        """Count one more patch: its split and its serialized tf.Example."""
        feature = tf.train.Example.FromString(serialized).features.feature
        self.num_examples[split] += 1
        block, *held_out = feature["block"].bytes_list.value[0].decode().split(HOLDOUT_MARK)
        self._add_blocks(split, [block])
        for name in held_out:
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
        # A record with one scene only has no time gap, though it holds a number.
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
        """Add the counts of `other` to these."""
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
        for split, blocks in other.blocks.items():
            self._add_blocks(split, blocks)
        for sensor, (first, last) in other.acquired_at.items():
            self._widen(sensor, first, last)
        for sensor, counted in other.bands.items():
            self.bands[sensor] = self.bands[sensor] + counted if sensor in self.bands else counted

    def _add_blocks(self, split: str, blocks: list[str]) -> None:
        known = self.blocks.setdefault(split, [])
        if not set(blocks) <= set(known):
            known[:] = sorted({*known, *blocks})[:MAX_BLOCKS]

    def _widen(self, sensor: str, first: int, last: int) -> None:
        known = self.acquired_at.setdefault(sensor, [first, last])
        known[:] = [min(known[0], first), max(known[1], last)]


def bin_edges(sensor: Sensor) -> tuple[float, float]:
    """Return the lower edge of the first bin and the bin width, dB or reflectance."""
    return PIXEL_FORMATS[sensor].valid_range[0], BIN_WIDTH[sensor]


def _histogram(raw: bytes, shape: list[int], sensor: Sensor) -> npt.NDArray[np.int64]:
    """Return the histograms int64 [C, NUM_BINS] of the stored pixels of a patch."""
    stored_as = PIXEL_FORMATS[sensor]
    lowest = round(stored_as.valid_range[0] / stored_as.scale)
    dn_per_bin = round(BIN_WIDTH[sensor] / stored_as.scale)
    pixels = np.frombuffer(raw, stored_as.dtype).reshape(*shape, -1)[::_PIXEL_STEP, ::_PIXEL_STEP]
    pixels = pixels.reshape(-1, pixels.shape[-1])
    num_bins, channels = NUM_BINS[sensor], pixels.shape[-1]
    bins = np.clip((pixels.astype(np.int64) - lowest) // dn_per_bin, 0, num_bins - 1)
    # One call counts all bands, because each band gets a range of bin numbers of its
    # own.
    bins += np.arange(channels) * num_bins
    counted = np.bincount(bins[pixels != stored_as.nodata], minlength=channels * num_bins)
    return counted.reshape(channels, num_bins)
