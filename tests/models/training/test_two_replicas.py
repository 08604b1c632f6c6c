import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

WORKER = Path(__file__).with_name("two_replica_worker.py")


@pytest.mark.e2e
def test_checks_under_two_replicas_find_what_one_finds(pairs, tmp_path):
    sys.path.insert(0, str(WORKER.parent))
    import two_replica_worker

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(WORKER), str(pairs.path), str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    one = two_replica_worker.run(pairs.path, tmp_path / "one")
    assert two["num_replicas"] == 2
    assert set(two["metrics"]) == set(one)
    for name in (
        "alignment/s1_s2",
        "uniformity/s1",
        "effective_rank/s2",
        "spread/s1",
        "recall_at_5/s1_to_s2",
    ):
        assert two["metrics"][name] == pytest.approx(one[name], rel=1e-3), name
