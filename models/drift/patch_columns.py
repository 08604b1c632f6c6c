"""Columns: what the records of a split say about each patch, without its pixels.

Input: shards of one split. Output: `PatchColumns`, NumPy arrays. `summary.py` computes
from them how uncertain the figures of a data set are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.shards import named_damage

FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.generic]

_BATCH = 64
_MAX_OPEN_FILES = 64
_TEXTS = ("block", *(f"{sensor}_scene_id" for sensor in SENSORS))
_NAMES = (
    *_TEXTS,
    "time_gap_hours",
    *(f"{sensor}_{name}" for sensor in SENSORS for name in ("mean", "std", "valid_fraction")),
)


@dataclass(frozen=True, kw_only=True)
class PatchColumns:
    """What N patches say about themselves; row i of all arrays is patch i.

    Attributes:
        mean: mean over the valid pixels, dB or reflectance, [N, C] by sensor.
        std: standard deviation over the valid pixels, [N, C] by sensor.
        valid_fraction: share of pixels with data, 0-1, [N] by sensor.
        scene: id of the scene, text [N] by sensor; "" = there is none.
        block: id of the spatial block, text [N].
        time_gap_hours: Sentinel-2 time minus Sentinel-1 time, [N].
    """

    mean: Mapping[Sensor, FloatArray]
    std: Mapping[Sensor, FloatArray]
    valid_fraction: Mapping[Sensor, FloatArray]
    scene: Mapping[Sensor, AnyArray]
    block: AnyArray
    time_gap_hours: FloatArray

    def __len__(self) -> int:
        return len(self.block)


def read_columns(manifest: Manifest, files: Sequence[str], max_patches: int) -> PatchColumns:
    """Return the columns of the first patches of all files, evenly.

    Args:
        manifest: of the shards.
        files: gzip TFRecords of one split.
        max_patches: largest number of patches.

    Raises:
        DamagedShardError: a shard cannot be read.
    """
    contract = records.feature_spec(*(len(manifest.bands(sensor)) for sensor in SENSORS))
    spec = {name: contract[name] for name in _NAMES}
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(sorted(files), tf.string)).interleave(
        lambda path: tf.data.TFRecordDataset(path, compression_type="GZIP"),
        cycle_length=min(max(len(files), 1), _MAX_OPEN_FILES),
    )
    batches = dataset.take(max_patches).batch(_BATCH)
    parsed: list[dict[str, npt.NDArray[Any]]] = []
    with named_damage(sorted(files), manifest):
        for serialized in batches:
            found = tf.io.parse_example(serialized, spec)
            parsed.append({name: tensor.numpy() for name, tensor in found.items()})
    joined = {name: np.concatenate([part[name] for part in parsed]) for name in _NAMES}
    for name in _TEXTS:
        joined[name] = np.array([value.decode() for value in joined[name]], str)

    def numbers(name: str) -> dict[Sensor, FloatArray]:
        return {sensor: joined[f"{sensor}_{name}"].astype(np.float64) for sensor in SENSORS}

    return PatchColumns(
        mean=numbers("mean"),
        std=numbers("std"),
        valid_fraction=numbers("valid_fraction"),
        scene={sensor: joined[f"{sensor}_scene_id"] for sensor in SENSORS},
        block=joined["block"],
        time_gap_hours=joined["time_gap_hours"].astype(np.float64),
    )
