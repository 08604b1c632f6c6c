"""Units: what is independent of the rest among the patches of a split.

Input: `PatchScores`, or where patches come from before there are scores. Output: the
unit of each patch, which intervals draw as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from models.intervals import MIN_UNITS
from models.scores.patch_scores import Texts

Unit = Literal["auto", "event", "scene", "block"]
"""What an interval counts. "auto" is explained at `units_of`."""


class HasOrigins(Protocol):
    """The origins of M patches, as in `PatchScores`; text [M] each, "" = unknown."""

    @property
    def event(self) -> Texts:
        """Name of the event."""

    @property
    def s1_scene_id(self) -> Texts:
        """Sentinel-1 image."""

    @property
    def s2_scene_id(self) -> Texts:
        """Sentinel-2 image."""

    @property
    def block(self) -> Texts:
        """Spatial block."""


@dataclass(frozen=True, kw_only=True)
class Origins:
    """The origins of M patches that are not scored; see `HasOrigins`."""

    event: Texts
    s1_scene_id: Texts
    s2_scene_id: Texts
    block: Texts


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


def units_of(patches: HasOrigins, unit: Unit = "auto") -> Units:
    """Return the unit of each patch.

    Patches of one event share weather, season and often the hand that drew the labels,
    so "auto" takes events when every patch has one and there are at least `MIN_UNITS`
    of them. Otherwise it takes spatial blocks.

    Args:
        patches: their scores, or their origins alone.
        unit: "event" (`terrapair:event`), "scene" (the Sentinel-1 image, or the
            Sentinel-2 image of a patch without one), "block", or "auto".

    Raises:
        ValueError: events are wanted, and a patch has none.
    """
    has_events = bool((patches.event != "").all())
    if unit == "event" and not has_events:
        raise ValueError(
            f"{int((patches.event == '').sum())} of {len(patches.event)} patches have no event: "
            "set terrapair:event in their items, or count by block"
        )
    if unit == "auto":
        enough = has_events and len(np.unique(patches.event)) >= MIN_UNITS
        unit = "event" if enough else "block"
    if unit == "scene":
        scene = np.where(patches.s1_scene_id != "", patches.s1_scene_id, patches.s2_scene_id)
        return Units(name=unit, of_patch=scene)
    return Units(name=unit, of_patch=patches.event if unit == "event" else patches.block)
