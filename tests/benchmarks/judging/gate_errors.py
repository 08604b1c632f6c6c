"""Measure how often the gate refuses equal models and takes worse ones.

`python -m tests.benchmarks gate_errors` judges 400 pairs of simulated models of each
kind. The tests of `models/gate` run the same simulation with fewer.
"""

from __future__ import annotations

import dataclasses

from tests.data.networks.make_judged import simulate


def measure() -> dict[str, float]:
    """Return the rates, by name; see `make_judged.Rates`."""
    return dataclasses.asdict(simulate(num_runs=400, num_resamples=1000))
