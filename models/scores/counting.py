"""Counts of one patch: confusion matrix, reliability, and probabilities by truth.

Input: truth, prediction and probabilities of each pixel. Output: one row of the arrays
of `PatchScores`. NumPy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.labels import IGNORE
from models import metrics
from models.scores.patch_scores import (
    NUM_CONFIDENCE_BINS,
    NUM_PROBABILITY_BINS,
    PROBABILITY_EDGES,
    NonFiniteScoresError,
)


def count_pixels(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], probabilities: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[Any]]:
    """Count the pixels that are 255 neither in truth nor in prediction.

    Args:
        truth: class ids [H, W], 255 = ignore.
        prediction: class ids [H, W], 255 = no data.
        probabilities: float32 [H, W, K], sum 1.

    Returns:
        `confusion`, `reliability` and `probability_counts`. Each is one row of the
        array of that name in `PatchScores`.

    Raises:
        ValueError: shapes differ, or an id is neither 0..K-1 nor 255.
        NonFiniteScoresError: a probability is NaN or infinite.
    """
    num_classes = probabilities.shape[-1]
    confusion = metrics.confusion_matrix(truth, prediction, num_classes)
    counted = (truth != IGNORE) & (prediction != IGNORE)
    classes, chances = truth[counted].astype(np.int64), probabilities[counted]
    num_bad = int((~np.isfinite(chances)).any(axis=-1).sum())
    if num_bad:
        raise NonFiniteScoresError(
            f"probabilities must be finite, got NaN or infinity at {num_bad} of {len(classes)} "
            "pixels of a patch"
        )
    ranked = [1] if num_classes == 2 else range(num_classes)
    return {
        "confusion": confusion,
        "reliability": _reliability(classes, chances),
        "probability_counts": np.stack(
            [_probability_counts(classes == number, chances[:, number]) for number in ranked]
        ),
    }


def _reliability(
    truth: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return pixels, hits and summed confidence of each bin, float64 [3, 15]."""
    confidence = probabilities.max(axis=-1).astype(np.float64)
    # A hit means that the most probable class is true, whatever the threshold:
    # confidence is the probability of that class.
    hits = (probabilities.argmax(axis=-1) == truth).astype(np.float64)
    bins = np.clip(
        np.ceil(confidence * NUM_CONFIDENCE_BINS).astype(np.int64) - 1, 0, NUM_CONFIDENCE_BINS - 1
    )
    weights = (np.ones_like(confidence), hits, confidence)
    return np.stack([np.bincount(bins, weight, NUM_CONFIDENCE_BINS) for weight in weights])


def _probability_counts(
    truth: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]
) -> npt.NDArray[np.int32]:
    """Return the number of pixels by truth and probability bin, int32 [2, 100]."""
    # Bins are (low, high]: the bin is the number of edges below the value, less one. So
    # "above an edge" means the same as "in a bin beyond it".
    bins = np.maximum(np.searchsorted(PROBABILITY_EDGES, probability, side="left") - 1, 0)
    # Rounding can make a probability slightly larger than 1.
    bins = np.minimum(bins, NUM_PROBABILITY_BINS - 1)
    counts = np.bincount(truth * NUM_PROBABILITY_BINS + bins, minlength=2 * NUM_PROBABILITY_BINS)
    return counts.reshape(2, NUM_PROBABILITY_BINS).astype(np.int32)
