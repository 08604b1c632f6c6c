"""Precision: a segmenter whose SavedModel has bfloat16 weights.

Input: a segmenter in float32, its scores on the eval split, and the precision that a
run asks for. Output: the segmenter as it is served, and its scores. What loses more
than MAX_IOU_LOSS is served in float32.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from models.config import ExportPrecision, Precision
from models.scores.patch_scores import PatchScores
from models.scores.summary import summarize
from models.segmenter import Segmenter, with_segmenter_precision

MAX_IOU_LOSS = 0.005
"""Largest loss of the mean IoU, and of the IoU of any class: half a point."""

_COMPUTES_IN: dict[ExportPrecision, Precision] = {
    "float32": "float32",
    "bfloat16": "float32",
    "mixed_bfloat16": "mixed_bfloat16",
}

_LOGGER = logging.getLogger("terrapair.training")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The precision that a segmenter is served in.

    Attributes:
        precision: the wanted one, or "float32".
        scores: of the segmenter as it is served.
        iou_loss: what the wanted precision costs; NaN if it is float32.
    """

    precision: ExportPrecision
    scores: PatchScores
    iou_loss: float = math.nan


def is_stored_in_half(variable: Any) -> bool:
    """Return whether a variable is stored in bfloat16: kernels are, vectors are not.

    Kernels are nearly all of a model's bytes. Vectors, such as those of normalizations,
    and the threshold keep all their digits.
    """
    return len(variable.shape) > 1 and variable.dtype == "float32"


def as_served(model: Segmenter, precision: ExportPrecision) -> Segmenter:
    """Return a segmenter that computes what the SavedModel of `model` computes.

    Its weights are float32 variables with values of bfloat16. It is `model` itself for
    float32, else a copy.

    Args:
        model: in float32.
        precision: of the SavedModel.
    """
    if precision == "float32":
        return model
    copy = Segmenter.from_config(model.get_config())
    copy.set_weights(
        [
            _rounded(weight) if is_stored_in_half(variable) else weight
            for variable, weight in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    return with_segmenter_precision(copy, _COMPUTES_IN[precision])


def _rounded(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(tf.cast(tf.cast(weight, tf.bfloat16), tf.float32))


def choose(
    model: Segmenter,
    wanted: ExportPrecision,
    scores: PatchScores,
    score: Callable[[Segmenter], PatchScores],
) -> Chosen:
    """Return the wanted precision if it costs at most MAX_IOU_LOSS, else float32.

    Args:
        model: in float32.
        wanted: by the run's config.
        scores: of `model` on the eval split.
        score: scores of another segmenter on the same split.
    """
    if wanted == "float32":
        return Chosen(precision="float32", scores=scores)
    served = score(as_served(model, wanted))
    loss = iou_loss(scores, served)
    if loss <= MAX_IOU_LOSS:
        return Chosen(precision=wanted, scores=served, iou_loss=loss)
    _LOGGER.warning(
        "export.precision %s costs %.2f points of IoU on the eval split, more than %.1f: the model "
        "is published in float32",
        wanted,
        100 * loss,
        100 * MAX_IOU_LOSS,
    )
    return Chosen(precision="float32", scores=scores, iou_loss=loss)


def iou_loss(scores: PatchScores, served: PatchScores) -> float:
    """Return the largest loss of the mean IoU and of the pooled IoU of a class, 0-1.

    It is below 0 if all of them are better. A class that never occurs does not count.
    """
    before, after = summarize(scores), summarize(served)
    names = ["mean_iou", *(f"pooled_iou/{name}" for name in scores.class_names)]
    return max(
        (before[name] - after[name] for name in names if not math.isnan(before[name])),
        default=0.0,
    )
