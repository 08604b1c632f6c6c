"""Slices: the patches of one event, hold-out, scene, orbit, cloud cover and the like.

Input: `PatchScores`. Output: name of a slice -> `PatchScores` of its patches. Each
dimension divides the patches into slices. NumPy only.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.records import HOLDOUT_MARK
from models.scores.patch_scores import PatchScores, Texts, select

UNKNOWN = "unknown"
CLOUD_EDGES = (0.1, 0.3, 0.6)
CLOUD_BANDS = ("0-10%", "10-30%", "30-60%", "60-100%")
LATITUDE_EDGES = (-60.0, -30.0, 0.0, 30.0, 60.0)
LATITUDE_BANDS = ("90S-60S", "60S-30S", "30S-0", "0-30N", "30N-60N", "60N-90N")
"""A band includes its lower edge, here and above."""

NOT_HELD_OUT = "none"

Dimension = Literal[
    "event",
    "holdout",
    "scene",
    "orbit_state",
    "cloud_fraction",
    "majority_label",
    "latitude",
]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


def by_slice(scores: PatchScores, dimension: Dimension) -> dict[str, PatchScores]:
    """Return `<dimension>=<value>` -> the scores of its patches.

    Every patch is in exactly one slice, and no slice is empty.

    Raises:
        ValueError: the dimension is unknown.
    """
    values = slice_values(scores, dimension)
    return {f"{dimension}={value}": select(scores, values == value) for value in np.unique(values)}


def slice_values(scores: PatchScores, dimension: Dimension) -> Texts:
    """Return the value of each patch in `dimension`, text [M].

    - `event`: name of the event, or "unknown".
    - `holdout`: hold-outs that contain the patch, or "none". Where a data set's own
      split has a region that no training saw, "none" is the split without it.
    - `scene`: Sentinel-1 scene.
    - `orbit_state`: orbit state of the Sentinel-1 pass.
    - `cloud_fraction`: band of cloud cover, or "unknown".
    - `majority_label`: most frequent class, or "unknown" when no pixel has a label.
    - `latitude`: band of latitude.

    Raises:
        ValueError: the dimension is unknown.
    """
    if dimension == "event":
        return np.where(scores.event == "", UNKNOWN, scores.event)
    if dimension == "holdout":
        return np.array(
            [" ".join(block.split(HOLDOUT_MARK)[1:]) or NOT_HELD_OUT for block in scores.block]
        )
    if dimension == "scene":
        return scores.s1_scene_id
    if dimension == "orbit_state":
        return scores.orbit_state
    if dimension == "cloud_fraction":
        return _banded(scores.cloud_fraction, CLOUD_EDGES, CLOUD_BANDS)
    if dimension == "latitude":
        return _banded(scores.lat, LATITUDE_EDGES, LATITUDE_BANDS)
    if dimension == "majority_label":
        names = np.array([*scores.class_names, UNKNOWN])
        return names[np.where(scores.majority_label == IGNORE, -1, scores.majority_label)]
    raise ValueError(
        f"dimension must be {', '.join(DIMENSIONS[:-1])} or {DIMENSIONS[-1]}, got {dimension!r}"
    )


def _banded(
    values: npt.NDArray[np.floating], edges: tuple[float, ...], names: tuple[str, ...]
) -> Texts:
    index = np.where(np.isnan(values), len(names), np.digitize(values, edges))
    return np.array([*names, UNKNOWN])[index]
