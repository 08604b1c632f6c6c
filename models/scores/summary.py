"""Scores by name over all patches, with confidence intervals.

Input: `PatchScores`. Output: name -> value, and bootstrap intervals over units
(events or spatial blocks). NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models import metrics
from models.intervals import MIN_UNITS, Interval, Resampling, bootstrap
from models.scores.calibration import expected_calibration_error
from models.scores.patch_scores import NUM_CONFIDENCE_BINS, FloatArray, PatchScores
from models.scores.units import units_of


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Sums over patches [...]; all scores are quotients of these.

    Attributes:
        confusion: number of pixels by truth and prediction [..., K, K].
        patch_iou: sum of the patches' IoU by class [..., K].
        num_with_class: number of patches whose IoU of the class is defined [..., K].
        reliability: see `PatchScores.reliability` [..., 3, B].
        loss: sum of the pixels' cross-entropy [...].
    """

    confusion: FloatArray
    patch_iou: FloatArray
    num_with_class: FloatArray
    reliability: FloatArray
    loss: FloatArray


def summarize(scores: PatchScores) -> dict[str, float]:
    """Return all scores over all patches, by name; NaN where nothing could be measured.

    Returns:
        `loss`: mean cross-entropy per pixel. `mean_iou`: mean of the pooled IoU over
            the classes that occur. `pixel_accuracy`. `ece`: expected calibration error.
            And for each class: `pooled_iou/<class>`, the IoU of all pixels together;
            `f1/<class>`, `precision/<class>` and `recall/<class>`, also pooled;
            `mean_patch_iou/<class>`, the mean of the patches' own IoU. The last leaves
            out patches with the class neither in truth nor in prediction; a patch where
            it is only predicted counts 0.
    """
    sums = _split(_parts(scores).sum(axis=0), len(scores.class_names))
    return {name: float(value) for name, value in _figures(sums, scores.class_names).items()}


def interval(scores: PatchScores, name: str, *, seed: int = 0) -> Interval:
    """Return the score `name` of `summarize` with its 95 % bootstrap interval.

    Whole units are drawn (`units.py`). The ends are NaN if there are fewer than
    `MIN_UNITS` of them.

    Raises:
        ValueError: there is no patch.
    """
    num_classes = len(scores.class_names)

    def statistic(sums: FloatArray) -> FloatArray:
        return _figures(_split(sums, num_classes), scores.class_names)[name]

    units = units_of(scores)
    found = bootstrap(_parts(scores), statistic, groups=units.of_patch, how=Resampling(seed=seed))
    if units.count < MIN_UNITS:
        return Interval(value=found.value, low=float("nan"), high=float("nan"))
    return found


def _parts(scores: PatchScores) -> FloatArray:
    """Return the values to sum over patches, one row a patch [M, P]."""
    patch_iou = metrics.iou_per_class(scores.confusion)
    columns = (
        scores.confusion,
        np.nan_to_num(patch_iou),
        np.isfinite(patch_iou),
        scores.reliability,
        scores.loss,
    )
    return np.concatenate(
        [column.reshape(len(scores), -1).astype(np.float64) for column in columns], axis=1
    )


def _split(sums: FloatArray, num_classes: int) -> _Sums:
    """Return the sums [..., P] of `_parts` by name."""
    sizes = (num_classes**2, num_classes, num_classes, 3 * NUM_CONFIDENCE_BINS, 1)
    confusion, patch_iou, num_with_class, reliability, loss = np.split(
        sums, np.cumsum(sizes)[:-1], axis=-1
    )
    return _Sums(
        confusion=confusion.reshape(*confusion.shape[:-1], num_classes, num_classes),
        patch_iou=patch_iou,
        num_with_class=num_with_class,
        reliability=reliability.reshape(*reliability.shape[:-1], 3, NUM_CONFIDENCE_BINS),
        loss=loss[..., 0],
    )


def _figures(sums: _Sums, class_names: tuple[str, ...]) -> dict[str, FloatArray]:
    """Return name -> value [...]; see `summarize`."""
    per_class = {
        "pooled_iou": metrics.iou_per_class(sums.confusion),
        "mean_patch_iou": metrics.ratio(sums.patch_iou, sums.num_with_class),
        "f1": metrics.f1_per_class(sums.confusion),
        "precision": metrics.precision_per_class(sums.confusion),
        "recall": metrics.recall_per_class(sums.confusion),
    }
    figures = {
        "loss": metrics.ratio(sums.loss, sums.confusion.sum(axis=(-2, -1))),
        "mean_iou": metrics.mean_iou(sums.confusion),
        "pixel_accuracy": metrics.pixel_accuracy(sums.confusion),
        "ece": expected_calibration_error(sums.reliability),
    }
    for name, values in per_class.items():
        figures |= {
            f"{name}/{class_name}": values[..., index]
            for index, class_name in enumerate(class_names)
        }
    return figures
