"""Segmentation metrics, all from one confusion matrix.

Input: class ids of truth and prediction, any integer type, 255 = ignore. Output: int64 [K, K] counts and the scores
derived from them. Called by `segment.py` and by the TFMA metrics of `components`. Counts of slices or batches add
up, so IoU is always of the pooled pixels, never a mean of per-patch scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from beam_jobs.contracts.labels import IGNORE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def confusion_matrix(truth: npt.NDArray[Any], prediction: npt.NDArray[Any], num_classes: int) -> IntArray:
    """Counts of (truth, prediction) pairs.

    Args:
        truth: integer class ids, any shape; 255 = ignore.
        prediction: integer class ids, same shape; 255 = the model says nothing (no data).
        num_classes: K.

    Returns:
        int64 [K, K], rows truth, columns prediction. A pixel that is 255 in either counts nowhere.

    Raises:
        ValueError: shapes differ, or an id is neither 0..K-1 nor 255.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth and prediction must have one shape, got {truth.shape} and {prediction.shape}")
    counted = (truth != IGNORE) & (prediction != IGNORE)
    # int64 first: in uint8 `truth * K` overflows from class 29 on with K = 9.
    rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, ids in (("truth", rows), ("prediction", columns)):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(f"{name} ids must be 0..{num_classes - 1} or {IGNORE}, got {ids.min()}..{ids.max()}")
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def tf_confusion_matrix(truth: tf.Tensor, prediction: tf.Tensor, num_classes: int) -> tf.Tensor:
    """`confusion_matrix` as TensorFlow ops: int64 [K, K]; an id outside 0..K-1 other than 255 raises when run."""
    truth = tf.reshape(tf.cast(truth, tf.int64), [-1])
    prediction = tf.reshape(tf.cast(prediction, tf.int64), [-1])
    counted = (truth != IGNORE) & (prediction != IGNORE)
    return tf.math.confusion_matrix(
        tf.boolean_mask(truth, counted), tf.boolean_mask(prediction, counted), num_classes, dtype=tf.int64
    )


def iou_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Intersection over union per class, float64 [K], 0-1; NaN for a class that neither truth nor prediction holds."""
    hits, truth, prediction = _marginals(cm)
    return _ratio(hits, truth + prediction - hits)


def mean_iou(cm: npt.NDArray[Any]) -> float:
    """Mean IoU over the classes that occur in truth or prediction; NaN when no pixel was counted.

    A class that is predicted but never true counts with IoU 0: leaving it out would hide false alarms.
    """
    iou = iou_per_class(cm)
    # Over what occurs: a slice without snow must not be punished, or praised, for snow.
    present = ~np.isnan(iou)
    return float(iou[present].mean()) if present.any() else float("nan")


def f1_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """F1 (Dice) per class, float64 [K], 0-1; NaN for a class that neither truth nor prediction holds."""
    hits, truth, prediction = _marginals(cm)
    return _ratio(2.0 * hits, truth + prediction)


def pixel_accuracy(cm: npt.NDArray[Any]) -> float:
    """Share of counted pixels that are right, 0-1; NaN when no pixel was counted."""
    total = float(np.sum(cm))
    return float(np.trace(cm)) / total if total else float("nan")


def _marginals(cm: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    matrix = np.asarray(cm, np.float64)
    return np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
