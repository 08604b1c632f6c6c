"""Measure how often the drift rules refuse equal spans and seasons, and find faults.

`python -m tests.benchmarks drift_errors` compares 200 pairs of simulated spans of each
kind, with few, some and many scenes. The tests of `models/drift` run the same
simulation with fewer.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

import make_summaries
from make_poison import FAULTS
from make_summaries import World

from models.drift.comparison import compare
from models.drift.config import DriftConfig
from models.drift.summary import DataSummary

NUM_PAIRS = 200
NUM_SCENES = (6, 24, 60)
SEASONS = {"wet": {"wetter_db": 3.0, "greener": 0.3}, "dry": {"wetter_db": -3.0, "greener": -0.6}}


def measure() -> dict[str, dict[str, float]]:
    """Return what was drawn -> share of pairs that a rule refused, by number of scenes."""
    found: dict[str, dict[str, float]] = {}
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
            name: sum(
                _is_refused(reference, make_summaries.make_span(10_000 + seed, other, fault))
                for seed, reference in enumerate(references)
            )
            / NUM_PAIRS
            for name, (other, fault) in kinds.items()
        }
    return found


def _is_refused(reference: DataSummary, new: DataSummary) -> bool:
    found = compare(reference, new, DriftConfig())
    return any(one.is_exceeded and one.severity == "refuse" for one in found)
