"""The baseline of `build_speed`: a plain loop with rasterio and NumPy, without Beam.

A careful person could write it in an afternoon. One process reads both files window by
window and writes one gzipped TFRecord, with the same features and integers as
build-pairs. It assumes that both scenes are valid and lie on one grid, and it cannot
resume.

It shares with build-pairs only the code that decides values: ids, splits, the rules of
refusal, the measured shift, the score, and the sums for the normalization.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import rasterio
import tensorflow as tf
from rasterio.windows import Window

from beam_jobs.config import BuildConfig
from beam_jobs.contracts.records import make_patch_id
from beam_jobs.data_card.statistics import BandSums
from beam_jobs.judging import quality, registration, splits
from beam_jobs.scenes.grids import to_lonlat


def run(catalog: Path, config: BuildConfig, output: Path) -> int:
    """Write all pairs of the catalog into one file and return their number."""
    items = [json.loads(line) for line in catalog.read_text().splitlines()]
    s1_items = [item for item in items if item["properties"]["constellation"] == "sentinel-1"]
    s2_items = [item for item in items if item["properties"]["constellation"] == "sentinel-2"]
    num_pairs = 0
    sums = {
        "s1": BandSums.zeros(len(config.patch.s1_bands)),
        "s2": BandSums.zeros(len(config.patch.s2_bands)),
    }
    with tf.io.TFRecordWriter(
        str(output), tf.io.TFRecordOptions(compression_type="GZIP")
    ) as writer:
        for s1_item in s1_items:
            place = s1_item["properties"]["terrapair:place"]
            there = [item for item in s2_items if item["properties"]["terrapair:place"] == place]
            s2_item = min(there, key=lambda item: abs(_seconds(item) - _seconds(s1_item)))
            for serialized in _pairs(catalog.parent, s1_item, s2_item, config, sums):
                writer.write(serialized)
                num_pairs += 1
    return num_pairs


def _seconds(item: dict) -> int:
    return int(
        datetime.fromisoformat(item["properties"]["datetime"].replace("Z", "+00:00")).timestamp()
    )


def _pairs(folder: Path, s1_item: dict, s2_item: dict, config: BuildConfig, sums: dict):
    size = config.patch.size_px
    clouds_path = folder / s2_item["assets"]["cloud_mask"]["href"]
    with (
        rasterio.open(folder / s1_item["assets"]["data"]["href"]) as s1_file,
        rasterio.open(folder / s2_item["assets"]["data"]["href"]) as s2_file,
        rasterio.open(clouds_path) as cloud_file,
    ):
        wanted = [s2_file.descriptions.index(name) + 1 for name in config.patch.s2_bands]
        for row in range(0, s1_file.height - size + 1, size):
            for col in range(0, s1_file.width - size + 1, size):
                window = Window(col, row, size, size)
                s1 = s1_file.read(window=window)
                s2 = s2_file.read(wanted, window=window)
                mask = cloud_file.read(1, window=window) != 0
                serialized = _pair(
                    s1,
                    s2,
                    mask,
                    s2_file.window_transform(window),
                    str(s2_file.crs),
                    s1_item,
                    s2_item,
                    config,
                    sums,
                )
                if serialized is not None:
                    yield serialized


def _pair(
    s1, s2, mask, transform, crs, s1_item, s2_item, config: BuildConfig, sums: dict
) -> bytes | None:
    size = config.patch.size_px
    x, y, step = transform.c, transform.f, transform.a * size
    lon, lat = to_lonlat(
        crs, [x + step / 2, x, x + step, x + step, x], [y - step / 2, y - step, y - step, y, y]
    )
    place = splits.assign(
        lon.tolist(),
        lat.tolist(),
        config.split,
        frozenset({s1_item["properties"]["terrapair:split"]}),
    )
    s1_valid, s2_valid = np.isfinite(s1), s2 > 0
    s1_all, s2_all = s1_valid.all(axis=0), s2_valid.all(axis=0)
    clouds = float(mask[s2_all].mean()) if s2_all.any() else 0.0
    db = np.moveaxis(s1, 0, -1)
    reflectance = np.moveaxis(np.where(s2_valid, s2 * np.float32(1e-4), np.float32(np.nan)), 0, -1)
    gap = (_seconds(s2_item) - _seconds(s1_item)) / 3600
    parts = quality.measure(db, reflectance, clouds, gap)
    if place.split is None or quality.refusal(parts, config.quality) is not None:
        return None
    offset = registration.measure_offset(db, reflectance, config.patch.s2_bands)
    parts = replace(parts, offset_px=offset.length_px if offset else float("nan"))
    score = quality.score(parts, config.pairing, config.quality)
    feature = {
        "patch_id": _bytes(
            make_patch_id(s1_item["id"], s2_item["id"], crs=crs, xmin=x, ymax=y, size_px=size)
        ),
        "height": _ints(size),
        "width": _ints(size),
        "s1": _bytes(
            np.where(s1_valid, np.rint(s1 / 0.01), -32768)
            .astype("<i2")
            .transpose(1, 2, 0)
            .tobytes()
        ),
        "s2": _bytes(s2.astype("<u2").transpose(1, 2, 0).tobytes()),
        "label": _bytes(b""),
        "lon": _floats(lon[0]),
        "lat": _floats(lat[0]),
        "block": _bytes(place.block),
        "s1_scene_id": _bytes(s1_item["id"]),
        "s2_scene_id": _bytes(s2_item["id"]),
        "s1_acquired_at": _ints(_seconds(s1_item)),
        "s2_acquired_at": _ints(_seconds(s2_item)),
        "time_gap_hours": _floats(gap),
        "orbit_state": _bytes(s1_item["properties"]["sat:orbit_state"]),
        "cloud_fraction": _floats(clouds),
        "offset_px": _floats(parts.offset_px),
        "edge_noise_fraction": _floats(parts.edge_noise_fraction),
        "saturated_fraction": _floats(parts.saturated_fraction),
        "quality": _floats(score),
        "weight": _floats(quality.weight(score, config.quality)),
        "event": _bytes(""),
        "s1_valid_fraction": _floats(s1_all.mean()),
        "s2_valid_fraction": _floats(s2_all.mean()),
    }
    for sensor, pixels, valid in (("s1", db, s1_valid), ("s2", reflectance, s2_valid)):
        if place.split == "train":
            sums[sensor].add(pixels, sensor)
        values = pixels.astype(np.float64)
        counts = np.maximum(valid.sum(axis=(1, 2)), 1)
        mean = np.nansum(values, axis=(0, 1)) / counts
        feature[f"{sensor}_mean"] = _floats(*mean)
        feature[f"{sensor}_std"] = _floats(
            *np.sqrt(np.nansum((values - mean) ** 2, axis=(0, 1)) / counts)
        )
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(
        deterministic=True
    )


def _bytes(value: str | bytes) -> tf.train.Feature:
    data = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))


def _ints(*values: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(*values: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
