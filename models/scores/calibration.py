"""Calibration: whether probabilities are reliable, and which threshold is best.

Input: counts of `PatchScores`. Output: expected calibration error, reliability curve,
confusion matrix at a threshold, and the best threshold. NumPy only. A model is
calibrated if, among pixels with confidence p, a share p is right.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models import metrics
from models.scores.patch_scores import NUM_PROBABILITY_BINS, FloatArray, IntArray, PatchScores

DEFAULT_THRESHOLD = 0.5
"""At this threshold the more probable of two classes is taken."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityCurve:
    """Accuracy by confidence, in bins that hold pixels, ascending.

    Attributes:
        confidence: mean probability of the most probable class [N], 0-1.
        accuracy: share of pixels that have that class [N], 0-1. It equals `confidence`
            where the model is calibrated.
        share: share of all pixels [N], sum 1.
    """

    confidence: FloatArray
    accuracy: FloatArray
    share: FloatArray


def expected_calibration_error(reliability: FloatArray) -> FloatArray:
    """Return the mean gap between confidence and accuracy over all pixels, 0-1.

    Args:
        reliability: sums of `PatchScores.reliability` over patches [..., 3, B].

    Returns:
        float64 [...]; NaN without pixels.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    pixels, hits, confidence = np.moveaxis(np.asarray(reliability), -2, 0)
    # A bin's |accuracy - confidence| is weighted by its pixels, so the division by them
    # cancels out.
    return metrics.ratio(np.abs(hits - confidence).sum(axis=-1), pixels.sum(axis=-1))


def reliability_curve(scores: PatchScores) -> ReliabilityCurve:
    """Return the reliability curve over all patches of `scores`."""
    sums = scores.reliability.sum(axis=0)
    pixels, hits, confidence = sums[:, sums[0] > 0]
    return ReliabilityCurve(
        confidence=confidence / pixels, accuracy=hits / pixels, share=pixels / pixels.sum()
    )


def threshold_confusion(probability_counts: npt.NDArray[Any], threshold: float) -> IntArray:
    """Return the confusion matrix when pixels above `threshold` get the second class.

    Args:
        probability_counts: pixels by truth and probability bin [..., 2, 100].
        threshold: probability, a multiple of 0.01 between 0 and 1, both excluded.

    Returns:
        int64 [..., 2, 2], rows truth, columns prediction.

    Raises:
        ValueError: the threshold is not the edge of a bin, or it gives all pixels one
            class.
    """
    edge = round(threshold * NUM_PROBABILITY_BINS)
    if abs(edge - threshold * NUM_PROBABILITY_BINS) > 1e-6 or not 0 < edge < NUM_PROBABILITY_BINS:
        raise ValueError(
            f"threshold must be a multiple of {1 / NUM_PROBABILITY_BINS} between 0 and 1, "
            f"got {threshold}"
        )
    counts = np.asarray(probability_counts)
    below, above = counts[..., :edge].sum(axis=-1), counts[..., edge:].sum(axis=-1)
    return np.stack([below, above], axis=-1)


def at_threshold(scores: PatchScores, threshold: float) -> PatchScores:
    """Return scores of two classes as the model would have them at `threshold`.

    Raises:
        ValueError: see `threshold_confusion`.
    """
    confusion = threshold_confusion(scores.probability_counts[:, 0], threshold)
    return dataclasses.replace(scores, threshold=threshold, confusion=confusion)


def at_best_threshold(scores: PatchScores) -> PatchScores:
    """Return scores as the model would have them at the best threshold on them.

    See `best_threshold`. Scores of more than two classes do not change.
    """
    if scores.threshold is None:
        return scores
    return at_threshold(scores, best_threshold(scores.probability_counts[:, 0]))


def best_threshold(probability_counts: npt.NDArray[Any]) -> float:
    """Return the threshold with the largest pooled IoU of the second class.

    Args:
        probability_counts: pixels by truth and probability bin [M, 2, 100].

    Returns:
        The threshold; of equally good ones, the nearest to 0.5. It is 0.5 if no pixel
        has the second class.
    """
    sums = np.asarray(probability_counts).sum(axis=0)
    if not sums[1].any():
        return DEFAULT_THRESHOLD
    candidates = np.arange(1, NUM_PROBABILITY_BINS) / NUM_PROBABILITY_BINS
    iou = np.array(
        [metrics.iou_per_class(threshold_confusion(sums, value))[1] for value in candidates]
    )
    # Sort by distance from 0.5: `argmax` takes the first of equal values.
    nearest = np.argsort(np.abs(candidates - DEFAULT_THRESHOLD), kind="stable")
    return float(candidates[nearest][iou[nearest].argmax()])
