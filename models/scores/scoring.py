"""One pass of a segmenter over a split, and the threshold that follows from it.

Input: a Keras segmenter and shards. Output: PatchScores. Called by `segment.py` after
training; any split of any labelled version can be scored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.labels import IGNORE, majority_label
from models.input_pipeline import parse_examples
from models.scores import calibration
from models.scores.counting import count_pixels
from models.scores.patch_scores import PatchScores
from models.segmenter import Segmenter

_TOLD = (
    "patch_id",
    "block",
    "s1_scene_id",
    "s2_scene_id",
    "orbit_state",
    "event",
    "cloud_fraction",
    "lat",
)
"""What is kept of each record, under its own name."""


def score_patches(
    model: Segmenter, files: Sequence[str], class_names: Sequence[str], *, batch_size: int
) -> PatchScores:
    """Runs `model` over all labelled patches of `files`, in the order of their names.

    Args:
        model: a segmenter; of two classes, its own threshold decides what `confusion`
            counts.
        files: gzip TFRecords of one split, at least one example.
        class_names: of the model's classes, by id.
        batch_size: patches at a time.

    Raises:
        ValueError: no patch, as many names as the model has classes are not given, or a
            label is neither 0..K-1 nor 255.
    """
    if len(class_names) != model.num_classes:
        raise ValueError(
            f"class_names must be {model.num_classes}, as the model has classes, got {list(class_names)}"
        )
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for batch in _read_batches(model, files, batch_size):
        for name, rows in _score_batch(batch).items():
            columns.setdefault(name, []).append(rows)
    if not columns:
        raise ValueError(f"files must hold at least one example, got none in {len(files)} files")
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    arrays.setdefault("probability_counts", None)
    return PatchScores(class_names=tuple(class_names), threshold=get_threshold(model), **arrays)


def tune_threshold(model: Segmenter, scores: PatchScores) -> PatchScores:
    """Gives a model of two classes the threshold that is best for the second one's pooled IoU on `scores` of it.

    Returns:
        What `score_patches` would say of it now. A model of more classes has no
        threshold and stays as it is.
    """
    counts = scores.probability_counts
    if counts is None:
        return scores
    threshold = calibration.best_threshold(counts)
    model.get_layer("label").threshold.assign(threshold)
    return dataclasses.replace(
        scores, threshold=threshold, confusion=calibration.threshold_confusion(counts, threshold)
    )


def get_threshold(model: Segmenter) -> float | None:
    """Probability above which a model of two classes takes a pixel for the second one; None for more classes."""
    threshold = model.get_layer("label").threshold
    if threshold is None:
        return None
    # Through a tensor, since a mirrored variable is no number; 0.37 as it was written,
    # not as float32 reads it.
    return round(float(tf.convert_to_tensor(threshold.value)), 6)


def _read_batches(
    model: Segmenter, files: Sequence[str], batch_size: int
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Batches of what the records tell, `label`, and the model's `prediction`, `probabilities` and `loss` [B, H, W]."""
    num_bands = {sensor: len(model.encoders[sensor].bands) for sensor in model.sensors}
    # Of the band counts nothing that is told depends.
    contract = records.feature_spec(1, 1)

    @tf.autograph.experimental.do_not_convert
    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        told = tf.io.parse_example(serialized, {name: contract[name] for name in _TOLD})
        return told | parse_examples(serialized, num_bands, with_label=True)

    @tf.function(reduce_retracing=True, autograph=False)
    def segment(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = model({sensor: batch[sensor] for sensor in model.sensors}, training=False)
        label = tf.cast(batch["label"], tf.int32)
        counted = (label != IGNORE) & (outputs["label"] != IGNORE)
        # Ids that are no class are refused where pixels are counted, with a message.
        target = tf.where(counted, tf.minimum(label, model.num_classes - 1), 0)
        # From logits: a probability that rounds to 0 would make the loss infinite.
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(target, outputs["logits"])
        return {
            "prediction": outputs["label"],
            "probabilities": outputs["probabilities"],
            "loss": tf.where(counted, loss, 0.0),
        }

    batches = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP").batch(batch_size)
    for batch in batches.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2):
        pixels = {name: batch[name] for name in (*model.sensors, "label")}
        told = {name: batch[name] for name in (*_TOLD, "label")}
        yield {name: tensor.numpy() for name, tensor in (told | segment(pixels)).items()}


def _score_batch(batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Rows of the arrays of PatchScores."""
    counts = [
        count_pixels(*patch)
        for patch in zip(batch["label"], batch["prediction"], batch["probabilities"], strict=True)
    ]
    told = {
        name: _texts(batch[name]) if batch[name].dtype == object else batch[name] for name in _TOLD
    }
    return {
        **told,
        "majority_label": majority_label(batch["label"]),
        "loss": batch["loss"].sum(axis=(1, 2), dtype=np.float64),
        **{name: np.stack([count[name] for count in counts]) for name in counts[0]},
    }


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.array([value.decode() for value in values])
