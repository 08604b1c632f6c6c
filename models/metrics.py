"""Segmentation metrics, all from confusion matrices.

Input: class ids of truth and prediction, any integer type, 255 = ignore. Output: int64
[K, K] counts, and the metrics of one matrix or of many, [..., K, K], each on its own.
Called by `scores` and by the TFMA metrics of `components`.
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
    """Counts of (truth, prediction) pairs.

    Args:
        truth: integer class ids, any shape; 255 = ignore.
        prediction: integer class ids, same shape; 255 = the model says nothing (no
            data).
        num_classes: K.

    Returns:
        int64 [K, K], rows truth, columns prediction. A pixel that is 255 in either
        counts nowhere.

    Raises:
        ValueError: shapes differ, or an id is neither 0..K-1 nor 255.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(
            f"truth and prediction must have one shape, got {truth.shape} and {prediction.shape}"
        )
    counted = (truth != IGNORE) & (prediction != IGNORE)
    # int64 first: in uint8 `truth * K` overflows from class 29 on with K = 9.
    rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
    for name, ids in (("truth", rows), ("prediction", columns)):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(
                f"{name} ids must be 0..{num_classes - 1} or {IGNORE}, got {ids.min()}..{ids.max()}"
            )
    counts = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def iou_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Intersection over union per class, float64 [..., K], 0-1; NaN for a class that neither truth nor prediction holds."""
    hits, truth, prediction = _marginals(cm)
    return ratio(hits, truth + prediction - hits)


def mean_iou(cm: npt.NDArray[Any]) -> FloatArray:
    """Mean IoU over the classes that occur in truth or prediction, float64 [...]; NaN when no pixel was counted.

    A class that is predicted but never true counts with IoU 0: leaving it out would
    hide false alarms.
    """
    iou = iou_per_class(cm)
    # Over what occurs: a slice without snow must not be punished, or praised, for snow.
    return ratio(np.nansum(iou, axis=-1), np.isfinite(iou).sum(axis=-1))


def f1_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """F1 (Dice) per class, float64 [..., K], 0-1; NaN for a class that neither truth nor prediction holds."""
    hits, truth, prediction = _marginals(cm)
    return ratio(2.0 * hits, truth + prediction)


def precision_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Share of what is predicted to be a class that is, float64 [..., K], 0-1; NaN for a class that is never predicted."""
    hits, _, prediction = _marginals(cm)
    return ratio(hits, prediction)


def recall_per_class(cm: npt.NDArray[Any]) -> FloatArray:
    """Share of a class that is found, float64 [..., K], 0-1; NaN for a class that is never true."""
    hits, truth, _ = _marginals(cm)
    return ratio(hits, truth)


def pixel_accuracy(cm: npt.NDArray[Any]) -> FloatArray:
    """Share of counted pixels that are right, float64 [...], 0-1; NaN when no pixel was counted."""
    hits, truth, _ = _marginals(cm)
    return ratio(hits.sum(axis=-1), truth.sum(axis=-1))


def ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    """Quotient of two arrays of one shape, float64; NaN where the denominator is 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)
    return result


def _marginals(cm: npt.NDArray[Any]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Hits, truth and prediction of each class [..., K]."""
    matrix = np.asarray(cm, np.float64)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)
