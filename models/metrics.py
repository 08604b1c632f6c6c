"""Segmentation metrics, all from confusion matrices.

Input: class ids of truth and prediction, any integer type, 255 = ignore. Output: int64
[K, K] counts, and the metrics of one matrix or of each of many, [..., K, K].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.labels import IGNORE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def confusion_matrix(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], num_classes: int
) -> IntArray:
    """Return the counts of (truth, prediction) pairs.

    Args:
        truth: integer class ids, any shape; 255 = ignore.
        prediction: integer class ids, same shape; 255 = no prediction (no data).
        num_classes: K.

    Returns:
        int64 [K, K], rows truth, columns prediction. A pixel that is 255 in either is
        not counted.

    Raises:
        ValueError: shapes differ, or an id is neither 0..K-1 nor 255.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth and prediction must have one shape, got {truth.shape} and {prediction.shape}"
        )
    counted = (truth != IGNORE) & (prediction != IGNORE)
    # int64 first: in uint8, `truth * K` overflows from class 29 on with K = 9.
    rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, ids in (("truth", rows), ("prediction", columns)):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(
                f"{name} ids must be 0..{num_classes - 1} or {IGNORE}, got {ids.min()}..{ids.max()}"
            )
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Return intersection over union per class, float64 [..., K], 0-1.

    NaN for a class that is neither in truth nor in prediction.
    """
    hits, truth, prediction = _marginals(cm)
    return ratio(hits, truth + prediction - hits)


def mean_iou(cm: npt.NDArray[Any]) -> FloatArray:
    """Return the mean IoU over the classes in truth or prediction, float64 [...].

    A class that is predicted but never true has IoU 0: leaving it out would hide false
    alarms. NaN when no pixel was counted.
    """
    iou = iou_per_class(cm)
    # Only over classes that occur: snow must not change the score of a slice without
    # snow.
    return ratio(np.nansum(iou, axis=-1), np.isfinite(iou).sum(axis=-1))


def f1_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Return F1 (Dice) per class, float64 [..., K], 0-1.

    NaN for a class that is neither in truth nor in prediction.
    """
    hits, truth, prediction = _marginals(cm)
    return ratio(2.0 * hits, truth + prediction)


def precision_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Return the precision per class, float64 [..., K], 0-1.

    NaN for a class that is never predicted.
    """
    hits, _, prediction = _marginals(cm)
    return ratio(hits, prediction)


def recall_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Return the recall per class, float64 [..., K], 0-1.

    NaN for a class that is never true.
    """
    hits, truth, _ = _marginals(cm)
    return ratio(hits, truth)


def pixel_accuracy(cm: npt.NDArray[Any]) -> FloatArray:
    """Return the share of correct pixels, float64 [...], 0-1; NaN for no pixels."""
    hits, truth, _ = _marginals(cm)
    return ratio(hits.sum(axis=-1), truth.sum(axis=-1))


def ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    """Return the quotient of two arrays of one shape, float64; NaN for x / 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)
    return result


def _marginals(cm: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return hits, true pixels and predicted pixels of each class [..., K]."""
    matrix = np.asarray(cm, np.float64)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)
