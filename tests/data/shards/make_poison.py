"""Poison a version: write its patches again with a fault that data really have.

A fault changes pixels in dB or reflectance, [..., H, W, C]. The new version has the
statistics of the changed pixels, as a build of such scenes would.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contracts import layout, manifest, records
from beam_jobs.contracts.records import PairedPatch
from tests.data.shards import make_shards

Pixels = Mapping[str, np.ndarray]
Fault = Callable[[Pixels, np.random.Generator], Pixels]


def _radar(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda pixels, rng: {**pixels, "s1": change(pixels["s1"])}


def _optics(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda pixels, rng: {**pixels, "s2": change(pixels["s2"])}


def _fewer_pixels(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Remove five times the share of pixels that is missing already."""
    found = {}
    for sensor, values in pixels.items():
        missing = float(np.isnan(values[..., 0]).mean())
        gone = rng.random(values.shape[:-1]) < 4.0 * missing / max(1.0 - missing, 1e-9)
        found[sensor] = np.where(gone[..., None], np.float32(np.nan), values)
    return found


def _shuffled(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Shuffle the pixels of each patch; both sensors keep their pairs of pixels."""
    height, width = pixels["s1"].shape[-3:-1]
    order = rng.permutation(height * width)

    def shuffle(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(*values.shape[:-3], height * width, values.shape[-1])
        return flat[..., order, :].reshape(values.shape)

    return {sensor: shuffle(values) for sensor, values in pixels.items()}


FAULTS: dict[str, Fault] = {
    "swapped": _radar(lambda s1: s1[..., ::-1]),
    "doubled": _radar(lambda s1: s1 * 2.0),
    "halved": _radar(lambda s1: s1 / 2.0),
    "power": _radar(lambda s1: 10.0 ** (s1 / 10.0)),
    "fewer_pixels": _fewer_pixels,
    "scaled": _optics(lambda s2: s2 / 10.0),
    "offset": _optics(lambda s2: s2 + 0.1),
    "shuffled": _shuffled,
}
"""Name -> fault: VV and VH swapped, decibels doubled or halved, power that was declared
as dB, five times the missing pixels, reflectance divided by 10, the offset of 1000 of
Sentinel-2 not subtracted, and pixels in another order."""


def poison_version(source: Path, root: Path, span: int, fault: str, seed: int = 0) -> Path:
    """Write a version again as version 1 of `span` below `root`, with a fault."""
    rng = np.random.default_rng(seed)
    old = manifest.read(source)
    path = layout.version_dir(root, span, 1)
    shards: dict[str, manifest.ShardEntry] = {}
    train: list[PairedPatch] = []
    for name in old.shards:
        encoded = []
        for record in tf.data.TFRecordDataset(str(source / name), compression_type="GZIP"):
            encoded.append(records.encode(_spoil(records.decode(record.numpy()), fault, rng)))
        shards[name] = make_shards.write_shard(path / name, encoded)
        train += [records.decode(one) for one in encoded] if name.startswith("train/") else []
    document = dataclasses.replace(
        old,
        span=span,
        version=1,
        shards=shards,
        s1_statistics=make_shards.statistics("s1", old.s1_bands, train),
        s2_statistics=make_shards.statistics("s2", old.s2_bands, train),
        source_sha256=hashlib.sha256(fault.encode()).hexdigest(),
    )
    (path / layout.MANIFEST_NAME).write_text(document.to_json())
    return path


def _spoil(patch: PairedPatch, fault: str, rng: np.random.Generator) -> PairedPatch:
    changed = FAULTS[fault]({"s1": patch.s1, "s2": patch.s2}, rng)
    return dataclasses.replace(
        patch, **{name: np.asarray(one, np.float32) for name, one in changed.items()}
    )
