"""Runs a dual encoder over shards.

Input: a dual encoder, in memory or published, and shards. Output: an `EmbeddedSplit`,
or embeddings batch by batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import majority_label
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.shards import named_damage
from models.dual_encoder import DualEncoder
from models.health.embedded_split import EmbeddedSplit
from models.input_pipeline import parse_examples
from models.published import export
from models.reading import passes

FloatArray = npt.NDArray[np.float32]
Arrays = dict[str, npt.NDArray[Any]]

_METADATA = (
    "lon",
    "lat",
    "block",
    "orbit_state",
    "s1_valid_fraction",
    "s2_valid_fraction",
    "s1_mean",
    "s2_mean",
)
"""Features of each record that are kept beside the embeddings."""

_MAX_OPEN_FILES = 64


class Embedder:
    """Runs a dual encoder in inference mode over batches or shards.

    The graph is compiled once, since a monitor runs it many times.

    Attributes:
        dual_encoder: each call uses its current weights.
    """

    def __init__(self, dual_encoder: DualEncoder) -> None:
        self.dual_encoder = dual_encoder

        specs = {
            sensor: tf.TensorSpec(
                [None, None, None, len(dual_encoder.encoders[sensor].bands)], tf.float32
            )
            for sensor in SENSORS
        }

        # One trace serves any batch and patch size, including the short last batch.
        @tf.function(input_signature=[specs], autograph=False)
        def encode(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            outputs = {}
            for sensor in SENSORS:
                pooled = dual_encoder.encoders[sensor].infer(batch[sensor])["pooled"]
                outputs[f"{sensor}_features"] = pooled
                outputs[f"{sensor}_embedding"] = dual_encoder.heads[sensor](pooled, training=False)
            return outputs

        self._encode = encode

    def encode(self, batch: Mapping[str, tf.Tensor]) -> Arrays:
        """Return features and embeddings of both sensors, float32.

        Args:
            batch: pixels float32 [B, H, W, C] by sensor, in dB or reflectance, NaN = no
                data.

        Returns:
            `<sensor>_features` [B, D] and `<sensor>_embedding` [B, E].
        """
        encoded = self._encode({sensor: batch[sensor] for sensor in SENSORS})
        return {name: tensor.numpy() for name, tensor in encoded.items()}

    def embed_split(
        self,
        manifest: Manifest,
        files: Sequence[str],
        *,
        max_patches: int | None = None,
        batch_size: int = 64,
    ) -> EmbeddedSplit:
        """Return features and embeddings of the patches in `files`.

        Args:
            manifest: manifest of the shards. Labels are read if it has a label schema.
            files: gzip TFRecords of one split.
            max_patches: largest number of patches, taken evenly from the beginning of
                all files. None: all.
            batch_size: patches per batch.

        Raises:
            ValueError: the encoder does not fit the shards (see `why_unfit`), or no
                patch has data in both sensors.
        """
        if reason := why_unfit(self.dual_encoder, manifest):
            raise ValueError(f"the encoder does not fit the shards: {reason}")
        parts: list[Arrays] = []
        for batch in _read_batches(manifest, files, max_patches, batch_size):
            part = metadata_of(batch) | self.encode(batch)
            if "label" in part:
                part["label"] = majority_label(part["label"])
            parts.append(part)
        merged = (
            {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            if parts
            else {}
        )
        return _to_split(merged, files)


def load_dual_encoder(saved_model_dir: str) -> DualEncoder:
    """Return the dual encoder of a published model.

    Raises:
        FileNotFoundError: the directory holds no encoder, or that of one sensor only.
    """
    encoders = export.load_encoders(saved_model_dir)
    if missing := [sensor for sensor in SENSORS if sensor not in encoders]:
        raise FileNotFoundError(
            f"{saved_model_dir}: must hold encoders of s1 and s2, got {', '.join(encoders)} "
            f"without {missing[0]}"
        )
    heads = export.load_heads(saved_model_dir)
    if missing := [sensor for sensor in SENSORS if sensor not in heads]:
        raise FileNotFoundError(
            f"{saved_model_dir}: must hold heads of s1 and s2, got {', '.join(heads)} "
            f"without {missing[0]}: copy the model back from where it was published"
        )
    return DualEncoder(encoders=encoders, heads=heads)


def why_unfit(model: DualEncoder, manifest: Manifest) -> str | None:
    """Return why `model` cannot read patches of `manifest`, or None when it can."""
    for sensor in SENSORS:
        encoder = model.encoders[sensor]
        held = manifest.bands(sensor)
        if encoder.bands != held:
            return (
                f"it takes {sensor} bands {', '.join(encoder.bands)}, "
                f"but the patches hold {', '.join(held)}"
            )
        if manifest.patch_size_px % encoder.stride:
            return (
                f"its stride {encoder.stride} does not divide "
                f"the patch size {manifest.patch_size_px}"
            )
    return None


@tf.autograph.experimental.do_not_convert
def decode(
    serialized: tf.Tensor, manifest: Manifest, names: Sequence[str], with_label: bool = False
) -> dict[str, tf.Tensor]:
    """Return the pixels of both sensors and the features `names`; for `tf.data`.

    Args:
        serialized: serialized tf.Examples [B], all of one patch size.
        manifest: gives the number of bands.
        names: other features of the records to return.
        with_label: also return `label`.
    """
    num_bands: dict[Sensor, int] = {sensor: len(manifest.bands(sensor)) for sensor in SENSORS}
    contract = records.feature_spec(num_bands["s1"], num_bands["s2"])
    pixels = parse_examples(serialized, num_bands, with_label=with_label)
    return pixels | tf.io.parse_example(serialized, {name: contract[name] for name in names})


def metadata_of(batch: Mapping[str, tf.Tensor]) -> Arrays:
    """Return everything in a batch but the pixels, as NumPy arrays."""
    return {name: tensor.numpy() for name, tensor in batch.items() if name not in SENSORS}


def seen_by_both(arrays: Arrays) -> Arrays:
    """Return the rows whose patch has data in both sensors.

    All patches without data have the same embedding, so as neighbours they would mean
    nothing. Reads `<sensor>_valid_fraction`.
    """
    seen = np.all([arrays[f"{sensor}_valid_fraction"] > 0 for sensor in SENSORS], axis=0)
    return {name: array[seen] for name, array in arrays.items()}


def _read_batches(
    manifest: Manifest, files: Sequence[str], max_patches: int | None, batch_size: int
) -> Iterator[dict[str, tf.Tensor]]:
    with_label = manifest.label_schema is not None
    # Interleave the files record by record: the first patches of one file often come
    # from one place.
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(sorted(files), tf.string)).interleave(
        lambda path: tf.data.TFRecordDataset(path, compression_type="GZIP"),
        cycle_length=min(max(len(files), 1), _MAX_OPEN_FILES),
    )
    dataset = dataset if max_patches is None else dataset.take(max_patches)
    batches = passes.one_pass(
        dataset.batch(batch_size),
        lambda serialized: decode(serialized, manifest, _METADATA, with_label),
    )
    with named_damage(sorted(files), manifest):
        yield from batches


def _to_split(arrays: Arrays, files: Sequence[str]) -> EmbeddedSplit:
    arrays = seen_by_both(arrays) if arrays else arrays
    if not arrays or not len(arrays["lat"]):
        raise ValueError(
            "a split needs at least one patch with data in both sensors, "
            f"got none in {len(files)} files"
        )

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
