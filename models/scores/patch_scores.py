"""PatchScores: what a segmenter got right and wrong in each patch of a split, as counts that add up.

Made by `scoring.py`, kept by `score_file.py`; all other modules of this package read
scores off it. NumPy only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]

NUM_CONFIDENCE_BINS = 15
"""Equal parts of 0-1. Source: Guo et al. 2017, arXiv 1706.04599, section 5."""

NUM_PROBABILITY_BINS = 100
"""Equal parts of 0-1: a threshold is a multiple of 0.01, finer than a few patches can tell apart."""

PROBABILITY_EDGES = (np.arange(NUM_PROBABILITY_BINS + 1) / NUM_PROBABILITY_BINS).astype(np.float32)
"""In the dtype of the model, so that counts and the model agree on which side of a threshold a pixel lies."""

_PER_SPLIT = ("class_names", "threshold")


@dataclass(frozen=True, kw_only=True)
class PatchScores:
    """M patches, row i of all arrays the same one. Only pixels with a label and with data in an input sensor are counted.

    Attributes:
        class_names: of the K classes.
        threshold: above which probability `confusion` takes a pixel for the second of
            two classes; None unless K = 2.
        patch_id: text [M].
        block: id of the spatial block, text [M].
        s1_scene_id: text [M].
        s2_scene_id: text [M].
        orbit_state: of the Sentinel-1 pass, text [M].
        event: name of the event, text [M]; "" = none is known.
        cloud_fraction: share of Sentinel-2 pixels that are cloud, 0-1, [M]; NaN = not
            known.
        lat: of the patch centre, degrees [M].
        majority_label: most frequent label id [M]; 255 = no pixel has one.
        loss: sum of the pixels' cross-entropy [M].
        confusion: pixels by truth and prediction, int64 [M, K, K].
        reliability: float64 [M, 3, 15]; in each bin (low, high] of the likeliest
            class's probability the number of pixels, the number of those of that class,
            and the sum of that probability.
        probability_counts: pixels by truth and bin (low, high] of the second class's
            probability, int64 [M, 2, 100]; None unless K = 2. Sums of it give the
            confusion at any threshold that is a bin's edge.
    """

    class_names: tuple[str, ...]
    threshold: float | None
    patch_id: Texts
    block: Texts
    s1_scene_id: Texts
    s2_scene_id: Texts
    orbit_state: Texts
    event: Texts
    cloud_fraction: FloatArray
    lat: FloatArray
    majority_label: IntArray
    loss: FloatArray
    confusion: IntArray
    reliability: FloatArray
    probability_counts: IntArray | None

    def __post_init__(self) -> None:
        num_classes, num_patches = len(self.class_names), len(self.patch_id)
        shapes = {"confusion": (num_classes, num_classes), "reliability": (3, NUM_CONFIDENCE_BINS)}
        if num_classes == 2:
            shapes["probability_counts"] = (2, NUM_PROBABILITY_BINS)
        for name, array in self.arrays().items():
            expected = (num_patches, *shapes.get(name, ()))
            if array.shape != expected:
                raise ValueError(f"{name} must have the shape {expected}, got {array.shape}")
        for name in ("threshold", "probability_counts"):
            if (getattr(self, name) is not None) != (num_classes == 2):
                raise ValueError(
                    f"{name} must be given for 2 classes and only then, got it for {num_classes} or not"
                )

    def __len__(self) -> int:
        return len(self.patch_id)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All that has a row per patch, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: value
            for name, value in fields.items()
            if name not in _PER_SPLIT and value is not None
        }


def select(scores: PatchScores, rows: npt.NDArray[Any]) -> PatchScores:
    """The patches at `rows` (a mask or positions) of `scores`."""
    taken: dict[str, Any] = {name: array[rows] for name, array in scores.arrays().items()}
    return dataclasses.replace(scores, **taken)
