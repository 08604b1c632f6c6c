"""A checkup: every health measure of one embedded split.

Input: an `EmbeddedSplit`. Output: a `Checkup`. Alarms are derived from it, and its
measures go to TensorBoard and into the model card.
"""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.contracts.bands import SENSORS, Sensor
from models.health import linear_probe, retrieval, shortcuts, spread
from models.health.embedded_split import EmbeddedSplit
from models.health.linear_probe import ProbeScore
from models.health.retrieval import Direction, Places, Ranks
from models.health.shortcuts import Shortcut
from models.health.spread import SpreadMeasure


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """All health measures of one split.

    Attributes:
        num_patches: number of patches that were measured.
        ranks: ranks of the partners, by direction.
        ranks_apart: the same without the neighbours of each patch; equal to `ranks`
            when neighbours are not left out.
        alignment: mean squared distance of partners; see `spread.alignment`.
        spreads: measures of `spread.spread_metrics` by sensor.
        content: R2 of predicting the other sensor's band means from this sensor's
            features, by sensor. Empty when the split is too small.
        shortcuts: what the embeddings encode of each nuisance; see `shortcuts.py`.
    """

    num_patches: int
    ranks: dict[Direction, Ranks]
    ranks_apart: dict[Direction, Ranks]
    alignment: float
    spreads: dict[Sensor, dict[SpreadMeasure, float]]
    content: dict[Sensor, ProbeScore]
    shortcuts: list[Shortcut]

    def metrics(self) -> dict[str, float]:
        """Return all measures by name, such as `spread/s1` or `recall_at_1/s1_to_s2`.

        `docs/health.md` explains each of them.
        """
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
        """Return the missing measures: name -> why it could not be measured."""
        return {item.name: item.skipped for item in self.shortcuts if item.skipped}


def examine(split: EmbeddedSplit, min_km: float = 0.0) -> Checkup:
    """Measure `split`.

    Args:
        split: patches and their embeddings.
        min_km: patches nearer than this are left out of `ranks_apart`.

    Raises:
        ValueError: the split has fewer than two patches.
    """
    s1, s2 = (split.embeddings[sensor] for sensor in SENSORS)
    ranks = retrieval.cross_modal_ranks(split.embeddings)
    places = Places(lon=split.lon, lat=split.lat, min_km=min_km)
    return Checkup(
        num_patches=len(split),
        ranks=ranks,
        ranks_apart=retrieval.cross_modal_ranks(split.embeddings, places) if min_km else ranks,
        alignment=spread.alignment(s1, s2),
        spreads={sensor: spread.spread_metrics(split.embeddings[sensor]) for sensor in SENSORS},
        content=_content(split),
        shortcuts=shortcuts.find_shortcuts(split),
    )


def _content(split: EmbeddedSplit) -> dict[Sensor, ProbeScore]:
    """Return how well each sensor's features predict the other's band means.

    Both sensors measure the same ground. The probe therefore needs no labels, and
    pretext shortcuts do not help it.
    """
    if linear_probe.too_few(split.block):
        return {}
    folds = linear_probe.spatial_folds(split.block)
    return {
        sensor: linear_probe.cross_validate_values(
            split.features[sensor], split.band_means[other], folds, groups=split.block
        )
        for sensor, other in zip(SENSORS, reversed(SENSORS), strict=True)
    }
