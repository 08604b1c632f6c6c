"""Two and three processes as workers of one training, on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import numpy as np
import pytest

from tests.data.runs.repository import REPOSITORY
from tests.data.shards import make_shards

# Five processes that import TensorFlow, two of which trace seven trainings.
pytestmark = pytest.mark.e2e

WORKER = Path(__file__).with_name("multi_worker_worker.py")


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def start(folder, kind, number):
    """Name -> process of each of several workers of one training."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(number)]
    processes = {}
    for index in range(number):
        name, task = f"{kind}-{index}", {"type": "worker", "index": index}
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task}),
        }
        command = [sys.executable, str(WORKER), str(folder), name]
        processes[name] = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True
        )
    return processes


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the only worker wrote, and what each of two did before one of them was killed."""
    folder = tmp_path_factory.mktemp("workers")
    version = make_shards.make_version(folder / "made", num_patches=46, size_px=8)
    (version / "train").rename(folder / "served")
    processes = start(folder, "two", 2)
    # The only worker needs no process of its own.
    sys.path.insert(0, str(WORKER.parent))
    import multi_worker_worker

    multi_worker_worker.main(str(folder), "one")
    by_name = {"one": np.load(folder / "one.npz")}
    endings = {"two-0": (1, "LostWorkerError: another worker"), "two-1": (-SIGKILL, "")}
    for name, process in processes.items():
        _, stderr = process.communicate(timeout=500)
        assert (folder / f"{name}.npz").exists(), stderr[-3000:]
        by_name[name] = np.load(folder / f"{name}.npz")
        code, message = endings[name]
        assert process.returncode == code, stderr[-3000:]
        assert message in stderr
    return folder, by_name


@pytest.mark.parametrize("kind", ["whole", "parts", "scaled", "resumed"])
def test_two_workers_take_the_steps_of_one(results, kind):
    _, by_name = results
    expected = by_name["one"]["whole/variables" if kind == "resumed" else f"{kind}/variables"]
    assert (
        np.abs(by_name["one"]["whole/variables"] - by_name["one"]["first/variables"]).max() > 1e-2
    )
    for name in ("two-0", "two-1"):
        assert by_name[name]["num_replicas"] == 2
        assert by_name[name][f"{kind}/loss"] == pytest.approx(
            float(by_name["one"][f"{kind}/loss"]), rel=1e-5
        )
        np.testing.assert_allclose(
            by_name[name][f"{kind}/variables"], expected, rtol=1e-5, atol=1e-6
        )


def test_all_workers_stop_and_keep_what_the_chief_measures(results):
    _, by_name = results
    for name in ("one", "two-0", "two-1"):
        assert by_name[name]["evaluated/num_evaluations"] == 4
        assert by_name[name]["evaluated/kept_step"] == 2
        np.testing.assert_allclose(
            by_name[name]["evaluated/variables"],
            by_name["one"]["first/variables"],
            rtol=1e-5,
            atol=1e-6,
        )


def test_the_first_worker_alone_writes(results):
    folder, by_name = results
    assert [bool(by_name[name]["is_chief"]) for name in ("one", "two-0", "two-1")] == [
        True,
        True,
        False,
    ]
    assert (folder / "logs-two-0" / "train").exists()
    assert not (folder / "logs-two-1").exists()
    kept = sorted(path.name for path in (folder / "kept-two").iterdir())
    assert kept[-1] == "step-000000004"
    assert len(kept) <= 2


def test_workers_that_serve_themselves_share_each_epoch(results):
    _, by_name = results
    shares = [by_name[name]["served"] for name in ("two-0", "two-1")]
    assert [len(share) for share in shares] == [2 * 46, 2 * 46]
    times = np.unique(np.concatenate(shares), axis=0, return_counts=True)[1]
    # Four epochs. A worker may be at most one ahead of the other.
    assert len(times) == 46
    assert set(times) <= {3, 4, 5}


def test_three_workers_go_on_after_one_of_two_was_killed(results):
    folder, by_name = results
    kept = folder / "kept-lost"
    assert [path.name for path in kept.iterdir()] == ["step-000000002"]
    processes = start(folder, "again", 3)
    for name, process in processes.items():
        _, stderr = process.communicate(timeout=500)
        assert process.returncode == 0, stderr[-3000:]
        found = np.load(folder / f"{name}.npz")
        assert found["num_replicas"] == 3
        np.testing.assert_allclose(
            found["variables"], by_name["one"]["whole/variables"], rtol=1e-5, atol=1e-6
        )
        assert found["loss"] == pytest.approx(float(by_name["one"]["whole/loss"]), rel=1e-5)
    assert sorted(path.name for path in kept.iterdir()) == ["step-000000002", "step-000000004"]
    assert [name for name in processes if (folder / f"logs-{name}").exists()] == ["again-0"]
