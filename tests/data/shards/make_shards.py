"""Write a small version directory: shards in the real codec and a manifest with real statistics.

Both sensors see one hidden map of classes, so contrastive and supervised losses can
fall. No patch is constant. Some pixels are no data (in one sensor or in both), some
labels are 255, and both orbit states occur.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
from scipy import ndimage

from beam_jobs.contracts import layout, manifest, records, settings
from beam_jobs.contracts.bands import BANDS, S2_L2A_BANDS, Sensor
from beam_jobs.contracts.labels import IGNORE, get_schema

NUM_PAIR_CLASSES = 4


def make_version(
    root: str | Path,
    *,
    kind: Literal["pairs", "labels"] = "pairs",
    num_patches: int = 24,
    size_px: int = 32,
    s1_bands: tuple[str, ...] = ("VV", "VH"),
    s2_bands: tuple[str, ...] = S2_L2A_BANDS,
    label_schema: str | None = None,
    seed: int = 0,
    span: int = 1,
    version: int = 1,
    north: float = 0.0,
) -> Path:
    """Write a version; eval and test get a third as many patches as train, at least 2.

    Args:
        root: folder that gets the span.
        kind: "pairs" or "labels"; "labels" needs a `label_schema`.
        num_patches: number of patches in train.
        size_px: height and width of a patch.
        s1_bands: bands of `s1`.
        s2_bands: bands of `s2`.
        label_schema: schema of the labels; None for pairs.
        seed: seed of the patches.
        span: number of the span.
        version: number of the version.
        north: moves all patches north by this many degrees.
    """
    if (kind == "labels") != (label_schema is not None):
        raise ValueError(
            "label_schema goes with kind 'labels' and only with it, "
            f"got {kind!r} and {label_schema!r}"
        )
    rng = np.random.default_rng(seed)
    num_classes = get_schema(label_schema).num_classes if label_schema else NUM_PAIR_CLASSES
    looks = _class_looks(num_classes, {"s1": s1_bands, "s2": s2_bands})
    path = layout.version_dir(root, span, version)
    counts = {
        "train": num_patches,
        "eval": max(2, num_patches // 3),
        "test": max(2, num_patches // 3),
    }
    shards: dict[str, manifest.ShardEntry] = {}
    num_pixels: dict[str, dict[str, int]] = {}
    for split, count in counts.items():
        patches = [
            _make_patch(rng, looks, split, i, size_px, label_schema is not None)
            for i in range(count)
        ]
        patches = [dataclasses.replace(patch, lat=patch.lat + north) for patch in patches]
        encoded = [records.encode(patch) for patch in patches]
        if split == "train":
            # The statistics describe the rounded values that the shards hold.
            train = [records.decode(record) for record in encoded]
        num_shards = 2 if split == "train" else 1
        for shard in range(num_shards):
            name = layout.shard_name(split, shard, num_shards)
            shards[name] = write_shard(path / name, encoded[shard::num_shards])
        labels = [
            patch.label.ravel() for patch in patches if isinstance(patch, records.LabeledPatch)
        ]
        if labels:
            ids, counted = np.unique(np.concatenate(labels), return_counts=True)
            num_pixels[split] = {
                str(label): int(count) for label, count in zip(ids, counted, strict=True)
            }
    document = manifest.Manifest(
        kind=kind,
        span=span,
        version=version,
        patch_size_px=size_px,
        pixel_size_m=10.0,
        s1_bands=s1_bands,
        s2_bands=s2_bands,
        s2_processing_level="L1C" if "B10" in s2_bands else "L2A",
        label_schema=label_schema,
        num_examples=counts,
        num_pixels_per_class=num_pixels,
        num_rejected={},
        shards=shards,
        s1_statistics=statistics("s1", s1_bands, train),
        s2_statistics=statistics("s2", s2_bands, train),
        config={"seed": seed},
        config_sha256=settings.sha256({"seed": seed}),
        source_sha256=hashlib.sha256(f"make_shards {seed}".encode()).hexdigest(),
        code_sha256="0" * 64,
        code_version="test",
    )
    (path / layout.MANIFEST_NAME).write_text(document.to_json())
    return path


def _class_looks(num_classes: int, bands: dict[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """Return the mean signal per class and band, float32 [K, C], in dB and in reflectance."""
    # This seed is fixed, so all versions show the same world.
    rng = np.random.default_rng(1234)
    base_db = np.linspace(-24.0, -4.0, num_classes)[:, None]
    base_reflectance = np.linspace(0.45, 0.04, num_classes)[:, None]
    s1 = (
        base_db
        + rng.normal(0.0, 1.5, (num_classes, len(bands["s1"])))
        - np.arange(len(bands["s1"])) * 6.0
    )
    s2 = base_reflectance * rng.uniform(0.4, 1.6, (num_classes, len(bands["s2"])))
    return {"s1": s1.astype(np.float32), "s2": s2.astype(np.float32)}


def _make_patch(
    rng: np.random.Generator,
    looks: dict[str, np.ndarray],
    split: str,
    index: int,
    size: int,
    labeled: bool,
) -> records.PairedPatch:
    num_classes = looks["s1"].shape[0]
    # A random bias per class gives each patch its own mix of classes, so pairs can be
    # told apart.
    fields = [
        ndimage.gaussian_filter(rng.normal(size=(size, size)), size / 8) for _ in range(num_classes)
    ]
    score = np.stack([field / field.std() + rng.normal(0.0, 1.0) for field in fields])
    label = score.argmax(axis=0).astype(np.uint8)
    s1 = looks["s1"][label] + rng.normal(0.0, 1.0, (size, size, looks["s1"].shape[1]))
    s2 = np.clip(
        looks["s2"][label] + rng.normal(0.0, 0.01, (size, size, looks["s2"].shape[1])), 0.001, 2.0
    )
    s1, s2 = s1.astype(np.float32), s2.astype(np.float32)
    margin = max(2, size // 8)
    if index % 3 == 1:
        s1[:margin] = np.nan
    if index % 3 == 2:
        s2[:, -margin:] = np.nan
    if index % 4 == 3:
        s1[-margin:, :margin] = np.nan
        s2[-margin:, :margin] = np.nan
    patch_id = hashlib.sha256(f"{split} {index} {rng.integers(2**31)}".encode()).hexdigest()[:20]
    acquired_at = 1_600_000_000 + index * 3600
    values = {
        "patch_id": patch_id,
        "s1": s1,
        "s2": s2,
        "lon": 10.0 + 0.01 * index,
        "lat": 45.0,
        "block": f"{split}-{index // 4}",
        "s1_scene_id": f"S1_{split}_{index // 4}",
        "s2_scene_id": f"S2_{split}_{index // 4}",
        "s1_acquired_at": acquired_at,
        "s2_acquired_at": acquired_at + 7200 * (index % 5 - 2),
        "orbit_state": "ascending" if index % 2 else "descending",
        "cloud_fraction": 0.05 * (index % 3),
        "offset_px": 0.1 * (index % 4),
        "quality": 1.0 - 0.02 * (index % 7),
        "edge_noise_fraction": 0.001 * (index % 5),
        "saturated_fraction": 0.002 * (index % 3),
        "weight": 1.0 - 0.25 * (index % 4),
        "event": ("Ghana", "", "Spain")[index % 3],
    }
    if not labeled:
        return records.PairedPatch(**values)
    label[rng.integers(size), : size // 2] = IGNORE
    return records.LabeledPatch(**values, label=label)


def write_shard(path: Path, encoded: list[bytes]) -> manifest.ShardEntry:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for record in encoded:
            writer.write(record)
    content = path.read_bytes()
    return manifest.ShardEntry(
        num_examples=len(encoded),
        num_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def statistics(
    sensor: Sensor, names: tuple[str, ...], patches: list[records.PairedPatch]
) -> tuple[manifest.BandStatistics, ...]:
    if not names:
        return ()
    pixels = [patch.pixels(sensor).reshape(-1, len(names)) for patch in patches]
    return band_statistics(sensor, names, np.concatenate(pixels))


def band_statistics(
    sensor: Sensor, names: tuple[str, ...], pixels: np.ndarray
) -> tuple[manifest.BandStatistics, ...]:
    """Return the statistics of pixels [..., C]."""
    entries = []
    for channel, name in enumerate(names):
        values = pixels[..., channel]
        values = values[np.isfinite(values)].astype(np.float64)
        p02, p50, p98 = np.percentile(values, [2, 50, 98])
        entries.append(
            manifest.BandStatistics(
                band=name,
                unit=BANDS[sensor][name].unit,
                num_pixels=values.size,
                mean=float(values.mean()),
                std=float(values.std()),
                p02=float(p02),
                p50=float(p50),
                p98=float(p98),
            )
        )
    return tuple(entries)
