"""Units: what is independent of the rest among the patches of a split.

Input: `PatchScores`. Output: the unit of each patch, which intervals draw as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.intervals import MIN_UNITS
from models.scores.patch_scores import PatchScores, Texts

Unit = Literal["auto", "event", "scene", "block"]
"""What an interval counts. "auto" is explained at `units_of`."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """The unit of each patch.

    Attributes:
        name: what a unit is: "event", "scene" or "block".
        of_patch: unit of each patch, text [M].
    """

    name: Unit
    of_patch: Texts

    @property
    def count(self) -> int:
        """The number of units."""
        return len(np.unique(self.of_patch))


def units_of(scores: PatchScores, unit: Unit = "auto") -> Units:
    """Return the unit of each patch.

    Patches of one event share weather, season and often the hand that drew the labels,
    so "auto" takes events when every patch has one and there are at least `MIN_UNITS`
    of them. Otherwise it takes spatial blocks.

    Args:
        scores: of the patches.
        unit: "event" (`terrapair:event`), "scene" (the Sentinel-1 image, or the
            Sentinel-2 image of a patch without one), "block", or "auto".

    Raises:
        ValueError: events are wanted, and a patch has none.
    """
    has_events = bool((scores.event != "").all())
    if unit == "event" and not has_events:
        raise ValueError(
            f"{int((scores.event == '').sum())} of {len(scores)} patches have no event: set "
            "terrapair:event in their items, or count by block"
        )
    if unit == "auto":
        enough = has_events and len(np.unique(scores.event)) >= MIN_UNITS
        unit = "event" if enough else "block"
    if unit == "scene":
        scene = np.where(scores.s1_scene_id != "", scores.s1_scene_id, scores.s2_scene_id)
        return Units(name=unit, of_patch=scene)
    return Units(name=unit, of_patch=scores.event if unit == "event" else scores.block)
