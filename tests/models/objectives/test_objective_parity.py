import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from repository import REPOSITORY

from models.config import ObjectiveName

# A minute of tracing: each objective is compiled for three ways of taking one step.
pytestmark = pytest.mark.e2e

WORKER = Path(__file__).with_name("objective_parity_worker.py")
# The controls learn by the objective "multimodal".
OBJECTIVES = [name for name in get_args(ObjectiveName) if name not in ("shuffled", "none")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("parity") / "results.npz"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(WORKER), str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(path)


@pytest.mark.parametrize("variant", ["two/whole", "two/parts"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_replicas_take_the_step_of_one(results, objective, variant):
    assert results["num_replicas"] == 2
    expected, got = (
        {
            key.rsplit("/", 1)[1]: results[key]
            for key in results.files
            if key.startswith(f"{objective}/{name}/")
        }
        for name in ("one/whole", variant)
    )
    assert {"loss", "temperature", "gradient", "weights"} <= set(expected)
    assert np.abs(expected["gradient"]).max() > 1e-3
    if objective != "decur":
        # 2 of the 8 x 7 negatives are near each other, on different replicas.
        assert float(expected["near_negative_fraction"]) == pytest.approx(2 / 56)
    for key, value in expected.items():
        assert np.abs(got[key] - value).max() <= 1e-5 * np.abs(value).max(), key
