"""Runs a segmenter over a split, and sets its threshold from the result.

Input: a Keras segmenter and shards of any split of a labelled version. Output:
`PatchScores`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.labels import IGNORE, majority_label
from beam_jobs.contracts.shards import named_damage
from models.input_pipeline import parse_examples
from models.reading import passes
from models.scores import calibration
from models.scores.counting import count_pixels
from models.scores.patch_scores import PatchScores
from models.segmenter import Segmenter

_Segment = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]

_METADATA = (
    "patch_id",
    "block",
    "s1_scene_id",
    "s2_scene_id",
    "orbit_state",
    "event",
    "cloud_fraction",
    "lat",
)
"""Features of each record that are kept, under their own names."""


def score_patches(
    model: Segmenter, files: Sequence[str], class_names: Sequence[str], *, batch_size: int
) -> PatchScores:
    """Return the scores of one split; see `score_splits`."""
    return SplitScorer(model, class_names, batch_size=batch_size).score(files)


def score_splits(
    model: Segmenter,
    splits: Sequence[Sequence[str]],
    class_names: Sequence[str],
    *,
    batch_size: int,
) -> list[PatchScores]:
    """Return the scores of each split; see `SplitScorer` for arguments and errors."""
    scorer = SplitScorer(model, class_names, batch_size=batch_size)
    return [scorer.score(files) for files in splits]


class SplitScorer:
    """Runs a segmenter over splits; it is traced once, also if its weights change.

    Attributes:
        model: the segmenter.
    """

    def __init__(self, model: Segmenter, class_names: Sequence[str], *, batch_size: int) -> None:
        """Keep the model; nothing is read yet.

        Args:
            model: a segmenter. With two classes, its own threshold decides what
                `confusion` counts.
            class_names: names of the model's classes, by id.
            batch_size: patches per batch.

        Raises:
            ValueError: the number of names differs from the number of classes.
        """
        if len(class_names) != model.num_classes:
            raise ValueError(
                f"class_names must be {model.num_classes}, one for each class of the model, "
                f"got {list(class_names)}"
            )
        self.model = model
        self._class_names, self._batch_size = tuple(class_names), batch_size
        self._segment = _segment_function(model)

    def score(self, files: Sequence[str]) -> PatchScores:
        """Run the model over all patches of a split, in the order of file names.

        Args:
            files: gzip TFRecords, at least one example.

        Raises:
            ValueError: there is no patch, or a label is neither 0..K-1 nor 255.
        """
        with named_damage(sorted(files)):
            batches = _read_batches(self.model, self._segment, files, self._batch_size)
            rows = [_score_batch(batch) for batch in batches]
        if not rows:
            raise ValueError(
                f"files must hold at least one example, got none in {len(files)} files"
            )
        arrays: dict[str, Any] = {
            name: np.concatenate([batch[name] for batch in rows]) for name in rows[0]
        }
        return PatchScores(
            class_names=self._class_names, threshold=get_threshold(self.model), **arrays
        )


def tune_threshold(model: Segmenter, scores: PatchScores) -> PatchScores:
    """Set the threshold of a two-class model to the best one on `scores` of it.

    The best threshold has the largest pooled IoU of the second class.

    Returns:
        The scores that `score_patches` would return now. A model of more classes has no
            threshold: it and its scores do not change.
    """
    tuned = calibration.at_best_threshold(scores)
    if tuned.threshold is not None:
        model.get_layer("label").threshold.assign(tuned.threshold)
    return tuned


def get_threshold(model: Segmenter) -> float | None:
    """Return the probability above which a pixel gets the second of two classes.

    None for more classes.
    """
    threshold = model.get_layer("label").threshold
    if threshold is None:
        return None
    # A mirrored variable is no number, so convert it to a tensor. Rounding gives 0.37
    # instead of its float32 value.
    return round(float(tf.convert_to_tensor(threshold.value)), 6)


def _segment_function(model: Segmenter) -> _Segment:
    """Return the function from a batch to the model's outputs.

    They are `prediction`, `probabilities` and `loss` [B, H, W, ...].
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def segment(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = model({sensor: batch[sensor] for sensor in model.sensors}, training=False)
        label = tf.cast(batch["label"], tf.int32)
        counted = (label != IGNORE) & (outputs["label"] != IGNORE)
        # Unknown ids are clipped here; counting refuses them later with a message.
        target = tf.where(counted, tf.minimum(label, model.num_classes - 1), 0)
        # Compute the loss from logits: a probability that rounds to 0 would make it
        # infinite.
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(target, outputs["logits"])
        return {
            "prediction": outputs["label"],
            "probabilities": outputs["probabilities"],
            "loss": tf.where(counted, loss, 0.0),
        }

    return cast(_Segment, segment)


def _read_batches(
    model: Segmenter, segment: _Segment, files: Sequence[str], batch_size: int
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield batches of metadata, labels and the outputs of `segment`."""
    num_bands = {sensor: len(model.encoders[sensor].bands) for sensor in model.sensors}
    # The kept features do not depend on the number of bands.
    contract = records.feature_spec(1, 1)

    @tf.autograph.experimental.do_not_convert
    def decode(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        metadata = tf.io.parse_example(serialized, {name: contract[name] for name in _METADATA})
        return metadata | parse_examples(serialized, num_bands, with_label=True)

    batches = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP").batch(batch_size)
    for batch in passes.one_pass(batches, decode):
        pixels = {name: batch[name] for name in (*model.sensors, "label")}
        metadata = {name: batch[name] for name in (*_METADATA, "label")}
        yield {name: tensor.numpy() for name, tensor in (metadata | segment(pixels)).items()}


def _score_batch(batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return the rows of the arrays of `PatchScores`."""
    counts = [
        count_pixels(*patch)
        for patch in zip(batch["label"], batch["prediction"], batch["probabilities"], strict=True)
    ]
    metadata = {
        name: _texts(batch[name]) if batch[name].dtype == object else batch[name]
        for name in _METADATA
    }
    return {
        **metadata,
        "majority_label": majority_label(batch["label"]),
        "loss": batch["loss"].sum(axis=(1, 2), dtype=np.float64),
        **{name: np.stack([count[name] for count in counts]) for name in counts[0]},
    }


def _texts(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.array([value.decode() for value in values])
