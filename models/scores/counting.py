"""Counts of one patch: confusion matrix, reliability bins, probabilities of the second class by truth.

Truth, prediction and probabilities per pixel -> the counts that PatchScores holds.
Called by `scoring.py`. NumPy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.labels import IGNORE
from models import metrics
from models.scores.patch_scores import NUM_CONFIDENCE_BINS, NUM_PROBABILITY_BINS, PROBABILITY_EDGES


def count_pixels(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], probabilities: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[Any]]:
    """Counts of the pixels that are 255 neither in truth nor in prediction.

    Args:
        truth: class ids [H, W], 255 = ignore.
        prediction: class ids [H, W], 255 = no data.
        probabilities: float32 [H, W, K], sum 1.

    Returns:
        `confusion`, `reliability` and, for two classes, `probability_counts`, each one
        row of the arrays of PatchScores.

    Raises:
        ValueError: see `metrics.confusion_matrix`.
    """
    num_classes = probabilities.shape[-1]
    confusion = metrics.confusion_matrix(truth, prediction, num_classes)
    counted = (truth != IGNORE) & (prediction != IGNORE)
    classes, chances = truth[counted].astype(np.int64), probabilities[counted]
    counts = {"confusion": confusion, "reliability": _reliability(classes, chances)}
    if num_classes == 2:
        counts["probability_counts"] = _probability_counts(classes, chances[:, 1])
    return counts


def _reliability(
    truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Pixels, hits and confidence in each bin, float64 [3, 15], of truth [N] and probabilities [N, K]."""
    confidence = probabilities.max(axis=-1).astype(np.float64)
    # Whether the likeliest class is true, whatever the threshold: confidence speaks of
    # that class.
    hits = (probabilities.argmax(axis=-1) == truth).astype(np.float64)
    bins = np.clip(
        np.ceil(confidence * NUM_CONFIDENCE_BINS).astype(np.int64) - 1, 0, NUM_CONFIDENCE_BINS - 1
    )
    weights = (np.ones_like(confidence), hits, confidence)
    return np.stack([np.bincount(bins, weight, NUM_CONFIDENCE_BINS) for weight in weights])


def _probability_counts(
    truth: npt.NDArray[np.int64], probability: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """Pixels by truth and bin, int64 [2, 100]."""
    # Edges below a value, less one: its bin, so that "above an edge" is the same as "in
    # a bin beyond it".
    bins = np.maximum(np.searchsorted(PROBABILITY_EDGES, probability, side="left") - 1, 0)
    # Rounding may lift a certainty above 1.
    bins = np.minimum(bins, NUM_PROBABILITY_BINS - 1)
    counts = np.bincount(truth * NUM_PROBABILITY_BINS + bins, minlength=2 * NUM_PROBABILITY_BINS)
    return counts.reshape(2, NUM_PROBABILITY_BINS).astype(np.int64)
