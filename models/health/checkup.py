"""One look at the encoders: every health figure of an embedded split.

Input: an `EmbeddedSplit`. Output: a `Checkup`, which alarms are raised from and which
becomes metrics. Called by `monitor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.health import linear_probe, retrieval, shortcuts, spread
from models.health.embedded_split import EmbeddedSplit
from models.health.linear_probe import ProbeScore
from models.health.retrieval import Ranks
from models.health.shortcuts import Shortcut


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """What was found.

    Attributes:
        num_patches: it was found on.
        ranks: of partners, by direction.
        alignment: see `spread.alignment`.
        spreads: `spread.spread_metrics` by sensor.
        content: R2 of reading the other sensor's band means off this sensor's features,
            by sensor; empty when the split is too small.
        shortcuts: see `shortcuts.py`.
    """

    num_patches: int
    ranks: dict[str, Ranks]
    alignment: float
    spreads: dict[Sensor, dict[str, float]]
    content: dict[Sensor, ProbeScore]
    shortcuts: list[Shortcut]

    def metrics(self) -> dict[str, float]:
        """All figures by name, the sensor or direction behind a slash; `docs/health.md` explains each."""
        by_sensor = {
            f"{name}/{sensor}": value
            for sensor, all_ in self.spreads.items()
            for name, value in all_.items()
        }
        return {
            "num_health_patches": float(self.num_patches),
            "alignment/s1_s2": self.alignment,
            **retrieval.recall_metrics(self.ranks),
            **by_sensor,
            **{f"content_r2/{sensor}": score.score for sensor, score in self.content.items()},
            **{item.name: item.score.score for item in self.shortcuts if item.score},
        }

    def not_measured(self) -> dict[str, str]:
        """Name of a figure that is missing -> why."""
        return {item.name: item.skipped for item in self.shortcuts if item.skipped}


def examine(split: EmbeddedSplit) -> Checkup:
    """The figures of `split`.

    Raises:
        ValueError: fewer than two patches.
    """
    s1, s2 = (split.embeddings[sensor] for sensor in SENSORS)
    return Checkup(
        num_patches=len(split),
        ranks=retrieval.cross_modal_ranks(split.embeddings),
        alignment=spread.alignment(s1, s2),
        spreads={sensor: spread.spread_metrics(split.embeddings[sensor]) for sensor in SENSORS},
        content=_content(split),
        shortcuts=shortcuts.find_shortcuts(split),
    )


def _content(split: EmbeddedSplit) -> dict[Sensor, ProbeScore]:
    """What both sensors measure is the ground: it needs no label, and no shortcut helps to tell it."""
    if linear_probe.too_few(split.block):
        return {}
    folds = linear_probe.spatial_folds(split.block)
    return {
        sensor: linear_probe.cross_validate_values(
            split.features[sensor], split.band_means[other], folds, groups=split.block
        )
        for sensor, other in zip(SENSORS, reversed(SENSORS), strict=True)
    }
