"""Runs the encoders over a split.

Input: a dual encoder, in memory or published, and shards. Output: an `EmbeddedSplit`. Called by `monitor.py`,
`pretrain.py` and the encoder's probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from models import export
from models.dual_encoder import DualEncoder
from models.health.embedded_split import EmbeddedSplit, majority_label
from models.input_pipeline import parse_examples

FloatArray = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

_TOLD = ("lon", "lat", "block", "orbit_state", "s1_valid_fraction", "s2_valid_fraction", "s1_mean", "s2_mean")
"""What is kept of each record."""

_MAX_OPEN_FILES = 64


class Embedder:
    """Runs a dual encoder over shards, as in service; compiled once, since a monitor asks many times.

    Attributes:
        dual_encoder: whose weights are used as they are at each call.
    """

    def __init__(self, dual_encoder: DualEncoder) -> None:
        self.dual_encoder = dual_encoder

        specs = {
            sensor: tf.TensorSpec([None, None, None, len(dual_encoder.encoders[sensor].bands)], tf.float32)
            for sensor in SENSORS
        }

        # Any batch and patch size in one trace, the last batch's too.
        @tf.function(input_signature=[specs])
        def encode(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            outputs = {}
            for sensor in SENSORS:
                pooled = dual_encoder.encoders[sensor](batch[sensor], training=False)["pooled"]
                outputs[f"{sensor}_features"] = pooled
                outputs[f"{sensor}_embedding"] = dual_encoder.heads[sensor](pooled, training=False)
            return outputs

        self._encode = encode

    def embed_split(
        self, manifest: Manifest, files: Sequence[str], *, max_patches: int | None = None, batch_size: int = 64
    ) -> EmbeddedSplit:
        """Features and embeddings of the patches of `files`.

        Args:
            manifest: of the shards; one with a label schema says that there are labels.
            files: gzip TFRecords of one split.
            max_patches: at most so many, taken from the beginning of all files alike. None = all.
            batch_size: patches at a time.

        Raises:
            ValueError: the shards hold other bands than the encoders know, or no patch with data in both sensors.
        """
        for sensor in SENSORS:
            known = self.dual_encoder.encoders[sensor].bands
            held = manifest.s1_bands if sensor == "s1" else manifest.s2_bands
            if known != held:
                raise ValueError(f"{sensor}: the encoder knows bands {known}, the shards hold {held}")
        parts: list[Arrays] = []
        for batch in _read_batches(manifest, files, max_patches, batch_size):
            encoded = self._encode({sensor: batch[sensor] for sensor in SENSORS})
            part = {name: tensor.numpy() for name, tensor in {**batch, **encoded}.items() if name not in SENSORS}
            if "label" in part:
                part["label"] = majority_label(part["label"])
            parts.append(part)
        merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
        return _to_split(merged, files)


def load_dual_encoder(saved_model_dir: str) -> DualEncoder:
    """The dual encoder inside a published model.

    Raises:
        FileNotFoundError: the directory holds none.
    """
    return DualEncoder(encoders=export.load_encoders(saved_model_dir), heads=export.load_heads(saved_model_dir))


def _read_batches(
    manifest: Manifest, files: Sequence[str], max_patches: int | None, batch_size: int
) -> Iterator[dict[str, tf.Tensor]]:
    num_bands: dict[Sensor, int] = {"s1": len(manifest.s1_bands), "s2": len(manifest.s2_bands)}
    contract = records.feature_spec(num_bands["s1"], num_bands["s2"])

    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = parse_examples(serialized, num_bands, with_label=manifest.label_schema is not None)
        return pixels | tf.io.parse_example(serialized, {name: contract[name] for name in _TOLD})

    # Record by record from each file in turn: the first patches of one file are often those of one place.
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(sorted(files), tf.string)).interleave(
        lambda path: tf.data.TFRecordDataset(path, compression_type="GZIP"),
        cycle_length=min(max(len(files), 1), _MAX_OPEN_FILES),
    )
    dataset = dataset if max_patches is None else dataset.take(max_patches)
    yield from dataset.batch(batch_size).map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _to_split(arrays: Arrays, files: Sequence[str]) -> EmbeddedSplit:
    if arrays:
        # Such a patch has the embedding of all others without data: a neighbour that says nothing.
        seen = np.all([arrays[f"{sensor}_valid_fraction"] > 0 for sensor in SENSORS], axis=0)
        arrays = {name: array[seen] for name, array in arrays.items()}
    if not arrays or not len(arrays["lat"]):
        raise ValueError(f"a split needs a patch with data in both sensors, got none in {len(files)} files")

    def by_sensor(name: str) -> dict[Sensor, FloatArray]:
        return {sensor: arrays[f"{sensor}_{name}"] for sensor in SENSORS}

    return EmbeddedSplit(
        features=by_sensor("features"),
        embeddings=by_sensor("embedding"),
        lon=arrays["lon"],
        lat=arrays["lat"],
        block=_texts(arrays["block"]),
        orbit_state=_texts(arrays["orbit_state"]),
        valid_fraction=by_sensor("valid_fraction"),
        band_means=by_sensor("mean"),
        label=arrays.get("label"),
    )


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.array([value.decode() for value in values])
