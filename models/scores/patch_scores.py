"""PatchScores: counts of a segmenter's hits and errors in each patch of a split.

`scoring.py` makes them and `score_file.py` stores them. All scores are computed from
sums of these counts. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.errors import ExitCode, TerrapairError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]

NUM_CONFIDENCE_BINS = 15
"""Number of equal bins of 0-1.

Source: Guo et al. 2017, arXiv 1706.04599, section 5.
"""

NUM_PROBABILITY_BINS = 100
"""Number of equal bins of 0-1. A threshold is a multiple of 0.01."""

PROBABILITY_EDGES = (np.arange(NUM_PROBABILITY_BINS + 1) / NUM_PROBABILITY_BINS).astype(np.float32)
"""Edges of the bins, in the model's dtype.

The dtype makes counts and model agree on which side of a threshold a pixel is.
"""

_PER_SPLIT = ("class_names", "threshold")


class NonFiniteScoresError(TerrapairError, ValueError):
    """Scores hold NaN or infinity, so the model that they are of is useless."""

    exit_code = ExitCode.REFUSED


@dataclass(frozen=True, kw_only=True)
class PatchScores:
    """Counts of M patches; row i of all arrays is patch i.

    Only pixels with a label and with data in an input sensor are counted.

    Attributes:
        class_names: names of the K classes.
        threshold: `confusion` gives a pixel the second of two classes if its
            probability is higher. None unless K = 2. NaN: patches were counted at the
            thresholds of several models.
        patch_id: text [M].
        block: id of the spatial block, text [M].
        s1_scene_id: text [M].
        s2_scene_id: text [M].
        orbit_state: orbit state of the Sentinel-1 pass, text [M].
        event: name of the event, text [M]; "" = unknown.
        cloud_fraction: share of cloudy Sentinel-2 pixels, 0-1, [M]; NaN = unknown.
        lat: latitude of the patch centre, degrees [M].
        majority_label: most frequent label id [M]; 255 = no pixel has a label.
        loss: sum of the pixels' cross-entropy, in nats [M].
        confusion: number of pixels by truth and prediction, int64 [M, K, K].
        reliability: float64 [M, 3, 15], by bin (low, high] of the confidence, which is
            the probability of the most probable class. The three rows are the number of
            pixels, the number of hits, and the sum of the confidence.
        probability_counts: number of pixels by truth (other class, this class) and bin
            (low, high] of the class's probability, int32 [M, C, 2, 100]. Of two
            classes only the second is counted (C = 1), else all (C = K). The sums give
            average precision and, for two classes, the confusion matrix at any
            threshold that is a bin's edge.
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
    probability_counts: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        num_classes, num_patches = len(self.class_names), len(self.patch_id)
        shapes: dict[str, tuple[int, ...]] = {
            "confusion": (num_classes, num_classes),
            "reliability": (3, NUM_CONFIDENCE_BINS),
        }
        num_ranked = 1 if num_classes == 2 else num_classes
        shapes["probability_counts"] = (num_ranked, 2, NUM_PROBABILITY_BINS)
        for name, array in self.arrays().items():
            expected = (num_patches, *shapes.get(name, ()))
            if array.shape != expected:
                raise ValueError(f"{name} must have the shape {expected}, got {array.shape}")
        for name in ("loss", "reliability"):
            bad = ~np.isfinite(getattr(self, name)).reshape(num_patches, -1).all(axis=1)
            if bad.any():
                raise NonFiniteScoresError(
                    f"{name} must be finite, got NaN or infinity in {bad.sum()} of {num_patches} "
                    f"patches, first in {self.patch_id[bad.argmax()]}"
                )
        if (self.threshold is not None) != (num_classes == 2):
            raise ValueError(
                "threshold must be given for 2 classes and must be None for any other number: "
                f"got {num_classes} classes"
            )

    def __len__(self) -> int:
        return len(self.patch_id)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all arrays with a row per patch, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name not in _PER_SPLIT}


def select(scores: PatchScores, rows: npt.NDArray[Any]) -> PatchScores:
    """Return the patches of `scores` at `rows`, a boolean mask [M] or positions."""
    taken: dict[str, Any] = {name: array[rows] for name, array in scores.arrays().items()}
    return dataclasses.replace(scores, **taken)


def concatenate(parts: Sequence[PatchScores]) -> PatchScores:
    """Return the patches of all parts, one part after the other.

    Each patch keeps the counts of its own model. `threshold` is that of the parts if
    they agree, else NaN.

    Raises:
        ValueError: there is no part, or the parts have different classes.
    """
    if len({part.class_names for part in parts}) != 1:
        raise ValueError(
            "parts must be at least one, all of the same classes, got "
            f"{[list(part.class_names) for part in parts]}"
        )
    thresholds = {part.threshold for part in parts}
    joined: dict[str, Any] = {
        name: np.concatenate([part.arrays()[name] for part in parts]) for name in parts[0].arrays()
    }
    return dataclasses.replace(
        parts[0], threshold=thresholds.pop() if len(thresholds) == 1 else math.nan, **joined
    )
