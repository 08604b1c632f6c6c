"""Measure the energy distance of embeddings under the demo's encoder.

`python -m tests.benchmarks drift_embeddings` after `make demo`: all pairs of `runs/demo`
are embedded by its encoder in service. Halves of the scenes, winter against summer, and
one half with each fault against the other half.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import tensorflow as tf

from beam_jobs.contracts import layout, published, records
from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.records import PairedPatch
from models.drift.embedding_drift import energy_coefficient
from models.health.embeddings import Embedder, load_dual_encoder
from tests.data.shards.make_poison import FAULTS

ROOT = Path("runs/demo")
_BATCH = 64


def measure() -> dict[str, dict[str, float]]:
    """Return what was compared -> sensor -> coefficient."""
    encoder = published.in_service(ROOT / "serving" / "encoder")
    if encoder is None:
        raise FileNotFoundError(f"{ROOT}: no published encoder: run `make demo` first")
    embedder = Embedder(load_dual_encoder(str(encoder)))
    patches = list(_read())
    scenes = np.array([patch.s2_scene_id for patch in patches])
    order = np.random.default_rng(0).permutation(np.unique(scenes))
    in_first = np.isin(scenes, order[::2])
    first, second = (
        [patch for patch, is_in in zip(patches, in_first == side, strict=True) if is_in]
        for side in (True, False)
    )
    season = np.array([_season(patch) for patch in patches])
    winter, summer = (
        [patch for patch, one in zip(patches, season, strict=True) if one == name]
        for name in ("winter", "summer")
    )
    kept = _embed(embedder, first)
    return {
        "halves": _distances(kept, _embed(embedder, second)),
        "winter_summer": _distances(_embed(embedder, winter), _embed(embedder, summer)),
        **{fault: _distances(kept, _embed(embedder, second, fault)) for fault in FAULTS},
    }


def _read():
    (span, version) = layout.list_versions(ROOT / "data" / "pairs")[-1]
    folder = layout.version_dir(ROOT / "data" / "pairs", span, version)
    for split in layout.SPLITS:
        for path in layout.shard_paths(folder, split):
            for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP"):
                yield records.decode(record.numpy())


def _season(patch: PairedPatch) -> str:
    seen = datetime.datetime.fromtimestamp(patch.s2_acquired_at, datetime.timezone.utc)
    # The southern hemisphere is half a year off.
    day = (seen.timetuple().tm_yday + (182 if patch.lat < 0 else 0)) % 365
    return "winter" if day < 70 or day > 310 else "summer" if 140 < day < 240 else ""


def _embed(embedder: Embedder, patches: list[PairedPatch], fault: str = "") -> dict:
    rng = np.random.default_rng(0)
    found: dict[str, list] = {sensor: [] for sensor in SENSORS}
    for start in range(0, len(patches), _BATCH):
        batch = patches[start : start + _BATCH]
        pixels = {s: np.stack([patch.pixels(s) for patch in batch]) for s in SENSORS}
        if fault:
            pixels = FAULTS[fault](pixels, rng)
        encoded = embedder.encode(
            {s: tf.constant(np.asarray(one, np.float32)) for s, one in pixels.items()}
        )
        for sensor in SENSORS:
            found[sensor].append(encoded[f"{sensor}_embedding"])
    return {sensor: np.concatenate(parts) for sensor, parts in found.items()}


def _distances(first: dict, second: dict) -> dict[str, float]:
    found = {}
    for sensor in SENSORS:
        rows = np.concatenate([first[sensor], second[sensor]]).astype(np.float64)
        distances = np.sqrt(np.maximum(2.0 - 2.0 * rows @ rows.T, 0.0))
        is_first = np.arange(len(rows)) < len(first[sensor])
        found[sensor] = round(energy_coefficient(distances, is_first), 3)
    return found
