"""Shortcuts: can the embedding tell what has nothing to do with the ground?

Input: an `EmbeddedSplit`. Output: for each nuisance (orbit state, latitude, width of
the no-data edge) how well a linear probe reads it off the embedding. Called by
`checkup.py`. A nuisance that both sensors of a pair share lets the loss fall without
anything being learned of the scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.health import linear_probe
from models.health.embedded_split import EmbeddedSplit
from models.health.linear_probe import ProbeScore

_NUISANCES = ("orbit_state", "latitude", "nodata_edge")

MIN_LATITUDE_RANGE_DEG = 1.0
"""Less is one place as far as climate and scene geometry go (about 111 km)."""

MIN_EDGE_STD = 0.005
"""Less spread of the no-data share is a few pixels in a few patches: nothing that a loss could live on."""


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """What one sensor's embedding knows of one nuisance.

    Attributes:
        nuisance: "orbit_state", "latitude" or "nodata_edge".
        sensor: whose embedding.
        score: out-of-block score of the probe; None when it could not be asked.
        skipped: why it could not; empty otherwise.
    """

    nuisance: str
    sensor: Sensor
    score: ProbeScore | None = None
    skipped: str = ""

    @property
    def name(self) -> str:
        """Of the figure: "shortcut_orbit_state/s1"."""
        return f"shortcut_{self.nuisance}/{self.sensor}"

    @property
    def strength(self) -> float:
        """How much is surely known: lower end of the interval from chance (0) to certainty (1)."""
        return (
            0.0
            if self.score is None
            else max(0.0, (self.score.low - self.score.chance) / (1.0 - self.score.chance))
        )


def find_shortcuts(split: EmbeddedSplit) -> list[Shortcut]:
    """All nuisances, each for the sensors that could know it; orbit is Sentinel-1's, latitude and edges are both's.

    Blocks are held out whole: of two neighbours one would give the other's nuisance
    away.
    """
    return [
        _probe(nuisance, sensor, split)
        for sensor in SENSORS
        for nuisance in (_NUISANCES if sensor == "s1" else _NUISANCES[1:])
    ]


def _probe(nuisance: str, sensor: Sensor, split: EmbeddedSplit) -> Shortcut:
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
