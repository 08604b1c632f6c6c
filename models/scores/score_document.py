"""The scores of a split as JSON values, for programs that do not use NumPy.

Input: `PatchScores`. Output: scores of all patches with intervals, and of each slice.
NumPy only.
"""

from __future__ import annotations

import math
from typing import Any

from models.scores.patch_scores import PatchScores
from models.scores.slices import DIMENSIONS, by_slice
from models.scores.summary import interval, summarize

_SLICED = tuple(dimension for dimension in DIMENSIONS if dimension != "scene")
"""Scenes are left out: there can be thousands. Each patch's counts name its scene."""


def make_document(scores: PatchScores, split: str) -> dict[str, Any]:
    """Return the document.

    Args:
        scores: scores of all patches of a split, at least one.
        split: name of the split.

    Returns:
        `split`, `class_names`, `threshold`, `num_patches`; `scores`, names and values
        of `summarize`; `intervals`, [low, high] of each pooled IoU and of `mean_iou`;
        `slices`, `<dimension>=<value>` -> `num_patches` and `scores`. None replaces
        NaN, which JSON does not have.
    """
    judged = [f"pooled_iou/{name}" for name in scores.class_names]
    found = {name: interval(scores, name) for name in (*judged, "mean_iou")}
    return {
        "split": split,
        "class_names": list(scores.class_names),
        "threshold": None if scores.threshold is None else _known(scores.threshold),
        **_figures(scores),
        "intervals": {name: [_known(one.low), _known(one.high)] for name, one in found.items()},
        "slices": {
            name: _figures(part)
            for dimension in _SLICED
            for name, part in by_slice(scores, dimension).items()
        },
    }


def _figures(scores: PatchScores) -> dict[str, Any]:
    return {
        "num_patches": len(scores),
        "scores": {name: _known(value) for name, value in summarize(scores).items()},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
