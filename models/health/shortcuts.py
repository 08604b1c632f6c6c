"""Pretext shortcuts: what embeddings encode that has nothing to do with the ground.

Input: an `EmbeddedSplit`. Output: for each nuisance, how well a linear probe predicts
it from the embedding. The nuisances are the orbit state, the latitude and the width of
the no-data edge. If both sensors share a nuisance, the model can match pairs by it: the
loss falls, and the model learns nothing about the ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.health import linear_probe
from models.health.embedded_split import EmbeddedSplit
from models.health.linear_probe import ProbeScore

Nuisance = Literal["orbit_state", "latitude", "nodata_edge"]

NUISANCES: dict[Sensor, tuple[Nuisance, ...]] = {
    "s1": ("orbit_state", "latitude", "nodata_edge"),
    "s2": ("latitude", "nodata_edge"),
}
"""What each sensor's embedding could encode. Only Sentinel-1 depends on the orbit."""

MIN_LATITUDE_RANGE_DEG = 1.0
"""A smaller range, about 111 km, has one climate and one scene geometry."""

MIN_EDGE_STD = 0.005
"""Least standard deviation of the no-data share.

Less is a few pixels in a few patches, too little to lower a loss.
"""


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """What one sensor's embedding encodes of one nuisance.

    Attributes:
        nuisance: what the probe predicts.
        sensor: sensor of the embedding.
        score: cross-validated score of the probe; None when it was not measured.
        skipped: why it was not measured; empty otherwise.
    """

    nuisance: Nuisance
    sensor: Sensor
    score: ProbeScore | None = None
    skipped: str = ""

    @property
    def name(self) -> str:
        """Name of the measure, such as "shortcut_orbit_state/s1"."""
        return f"shortcut_{self.nuisance}/{self.sensor}"

    @property
    def strength(self) -> float:
        """How much the embedding encodes for certain, 0 (chance) to 1 (everything).

        Uses the lower end of the interval.
        """
        return (
            0.0
            if self.score is None
            else max(0.0, (self.score.low - self.score.chance) / (1.0 - self.score.chance))
        )


def find_shortcuts(split: EmbeddedSplit) -> list[Shortcut]:
    """Measure each nuisance for each sensor that it could affect.

    Whole blocks are held out: a neighbour in the train part would give a patch's
    nuisance away.
    """
    return [_probe(nuisance, sensor, split) for sensor in SENSORS for nuisance in NUISANCES[sensor]]


def _probe(nuisance: Nuisance, sensor: Sensor, split: EmbeddedSplit) -> Shortcut:
    rows = np.ones(len(split), bool)
    target: npt.NDArray[Any]
    if nuisance == "orbit_state":
        target, rows = split.orbit_state, split.orbit_state != "unknown"
        skipped = "" if len(np.unique(target[rows])) > 1 else "one orbit state only"
    elif nuisance == "latitude":
        target = split.lat.astype(np.float64)
        skipped = (
            ""
            if np.ptp(target) >= MIN_LATITUDE_RANGE_DEG
            else f"within {MIN_LATITUDE_RANGE_DEG:g} degree"
        )
    else:
        target = 1.0 - split.valid_fraction[sensor].astype(np.float64)
        skipped = "" if target.std() >= MIN_EDGE_STD else "no-data edges do not vary"
    embedding, target, block = split.embeddings[sensor][rows], target[rows], split.block[rows]
    skipped = skipped or linear_probe.too_few(block)
    if skipped:
        return Shortcut(nuisance=nuisance, sensor=sensor, skipped=skipped)
    folds = linear_probe.spatial_folds(block)
    if nuisance != "orbit_state":
        score = linear_probe.cross_validate_values(embedding, target, folds, groups=block)
    elif linear_probe.can_hold_out(target, folds):
        score = linear_probe.cross_validate_classes(embedding, target, folds, groups=block)
    else:
        return Shortcut(
            nuisance=nuisance, sensor=sensor, skipped="an orbit state lies in too few blocks"
        )
    return Shortcut(nuisance=nuisance, sensor=sensor, score=score)
