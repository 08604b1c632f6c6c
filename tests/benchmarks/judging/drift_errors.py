"""Measure how often the drift rules refuse equal spans and seasons, and find faults.

`python -m tests.benchmarks drift_errors` compares 200 pairs of simulated spans of each
kind, with few, some and many scenes. It tells also how often the score reaches the
setting from which `retrain` trains without new scenes. The tests of `models/drift` run
the same simulation with fewer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from models.drift.comparison import compare
from models.drift.config import DriftConfig
from models.drift.report import ratio
from models.drift.summary import DataSummary
from tests.data.shards import make_summaries
from tests.data.shards.make_poison import FAULTS
from tests.data.shards.make_summaries import World

NUM_PAIRS = 200
NUM_SCENES = (6, 24, 60)
SEASONS = {"wet": {"wetter_db": 3.0, "greener": 0.3}, "dry": {"wetter_db": -3.0, "greener": -0.6}}


@dataclass(frozen=True, kw_only=True)
class _Rates:
    """Shares of the pairs of one kind, 0-1.

    Attributes:
        refused: a rule refuses the new span.
        retrained: the score reaches `retrain_score`; refused spans have more.
    """

    refused: float
    retrained: float


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Return what was drawn -> rates, by number of scenes; see `_Rates`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for num_scenes in NUM_SCENES:
        world = World(num_scenes=num_scenes)
        kinds = {
            "equal": (world, ""),
            **{
                name: (World(num_scenes=num_scenes, **season), "")
                for name, season in SEASONS.items()
            },
            **{fault: (world, fault) for fault in FAULTS},
        }
        references = [make_summaries.make_span(seed, world) for seed in range(NUM_PAIRS)]
        found[f"{num_scenes}_scenes"] = {
            name: asdict(
                _rates(
                    _score(reference, make_summaries.make_span(10_000 + seed, other, fault))
                    for seed, reference in enumerate(references)
                )
            )
            for name, (other, fault) in kinds.items()
        }
    return found


def _rates(scores: Iterable[float]) -> _Rates:
    given = list(scores)
    limit = DriftConfig().retrain_score or 1.0
    return _Rates(
        refused=sum(score > 1.0 for score in given) / len(given),
        retrained=sum(score >= limit for score in given) / len(given),
    )


def _score(reference: DataSummary, new: DataSummary) -> float:
    found = compare(reference, new, DriftConfig())
    return max(ratio(one) for one in found if one.severity == "refuse")
