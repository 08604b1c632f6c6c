"""Calibration: whether probabilities mean what they say, and above which one a pixel is best taken for the second class.

Sums of PatchScores -> expected calibration error, reliability curve, confusion at a
threshold, the best threshold. Called by `summary.py`, `scoring.py` and the report.
NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models import metrics
from models.scores.patch_scores import NUM_PROBABILITY_BINS, FloatArray, IntArray, PatchScores

DEFAULT_THRESHOLD = 0.5
"""Where the likelier of two classes is taken."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityCurve:
    """Bins of confidence that hold pixels, ascending.

    Attributes:
        confidence: mean probability of the likeliest class [N], 0-1.
        accuracy: share of pixels of that class [N], 0-1; equal to `confidence` where
            the model is calibrated.
        share: of all pixels [N], sum 1.
    """

    confidence: FloatArray
    accuracy: FloatArray
    share: FloatArray


def expected_calibration_error(reliability: FloatArray) -> FloatArray:
    """Mean gap between confidence and accuracy over the pixels, float64 [...], 0-1, of sums [..., 3, B]; NaN without pixels.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3.
    """
    pixels, hits, confidence = np.moveaxis(np.asarray(reliability), -2, 0)
    # |accuracy - confidence| of a bin times its pixels: the division cancels out.
    return metrics.ratio(np.abs(hits - confidence).sum(axis=-1), pixels.sum(axis=-1))


def reliability_curve(scores: PatchScores) -> ReliabilityCurve:
    """The curve over all patches of `scores`."""
    sums = scores.reliability.sum(axis=0)
    pixels, hits, confidence = sums[:, sums[0] > 0]
    return ReliabilityCurve(
        confidence=confidence / pixels, accuracy=hits / pixels, share=pixels / pixels.sum()
    )


def threshold_confusion(probability_counts: npt.NDArray[Any], threshold: float) -> IntArray:
    """Confusion int64 [..., 2, 2] when pixels above `threshold` are taken for the second class, of counts [..., 2, 100].

    Raises:
        ValueError: the threshold is not the edge of a bin, or takes all pixels for one
            class.
    """
    edge = round(threshold * NUM_PROBABILITY_BINS)
    if abs(edge - threshold * NUM_PROBABILITY_BINS) > 1e-6 or not 0 < edge < NUM_PROBABILITY_BINS:
        raise ValueError(
            f"threshold must be a multiple of {1 / NUM_PROBABILITY_BINS} within 0 and 1, got {threshold}"
        )
    counts = np.asarray(probability_counts)
    below, above = counts[..., :edge].sum(axis=-1), counts[..., edge:].sum(axis=-1)
    return np.stack([below, above], axis=-1)


def best_threshold(probability_counts: npt.NDArray[Any]) -> float:
    """Threshold of the largest pooled IoU of the second class, of counts [M, 2, 100]; among equals the nearest to 0.5.

    0.5 where that class is never true: then there is nothing to find.
    """
    sums = np.asarray(probability_counts).sum(axis=0)
    if not sums[1].any():
        return DEFAULT_THRESHOLD
    candidates = np.arange(1, NUM_PROBABILITY_BINS) / NUM_PROBABILITY_BINS
    iou = np.array(
        [metrics.iou_per_class(threshold_confusion(sums, value))[1] for value in candidates]
    )
    # By distance first, since the first of equals is taken.
    nearest = np.argsort(np.abs(candidates - DEFAULT_THRESHOLD), kind="stable")
    return float(candidates[nearest][iou[nearest].argmax()])
