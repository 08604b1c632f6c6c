"""Workers of one training: what the first tells the others, and a pretraining of two."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import DamagedFileError
from beam_jobs.contracts.settings import SettingsError
from components.trainers import workers
from models.config import EncoderConfig, InputConfig, PretrainConfig
from models.published import export
from models.training.distribution import LostWorkerError
from tests.data.runs.make_fn_args import make_fn_args
from tests.data.runs.repository import REPOSITORY

ENCODER = EncoderConfig(backbone="small", embedding_dim=8)


def tf_config(index, ports=(1, 2)):
    hosts = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(("text", "index"), [(tf_config(0), 0), (tf_config(1), 1), ("{}", 0)])
def test_the_index_is_that_of_tf_config(text, index):
    assert workers.worker_index({"TF_CONFIG": text}) == index
    assert workers.worker_index({}) == 0


@pytest.mark.parametrize("text", ["worker-1", "[]", '{"task": {"index": "first"}}', '{"task": 1}'])
def test_another_tf_config_is_refused(text):
    with pytest.raises(SettingsError, match="TF_CONFIG: must be JSON with cluster and task"):
        workers.worker_index({"TF_CONFIG": text})


@pytest.fixture
def calls(monkeypatch):
    """Give `components.trainers.workers` a run_fn, and return what it was called with."""
    found = []

    def run_fn(fn_args):
        found.append(fn_args)

    run_fn.__module__ = "components.trainers.workers"
    monkeypatch.setattr(workers, "run_fn", run_fn, raising=False)
    return found


def test_others_train_with_the_arguments_of_the_first(calls, pairs_version, tmp_path, monkeypatch):
    fn_args = make_fn_args(pairs_version, tmp_path, PretrainConfig(encoder=ENCODER, num_steps=2))
    folder = tmp_path / "workers"
    run = workers.shared(workers.run_fn)
    # Only the first of several tells them.
    run(fn_args)
    monkeypatch.setenv(workers.FOLDER, str(folder))
    monkeypatch.setenv("TF_CONFIG", tf_config(1))
    run(fn_args)
    assert not folder.exists()
    monkeypatch.setenv("TF_CONFIG", tf_config(0))
    run(fn_args)
    workers.tell_end(os.environ)
    assert workers.follow(str(folder), 1, poll_s=0.01) == "components.trainers.workers.run_fn"
    *own, followed = calls
    assert own == [fn_args] * 3
    assert followed.model_run_dir == f"{folder}/worker-1"
    for name in ("train_files", "eval_files", "hyperparameters", "custom_config", "base_model"):
        assert getattr(followed, name) == getattr(fn_args, name)
    assert followed.serving_model_dir == fn_args.serving_model_dir


def test_a_worker_ends_after_the_first_and_not_when_that_begins_again(
    calls, pairs_version, tmp_path, monkeypatch
):
    fn_args = make_fn_args(pairs_version, tmp_path, PretrainConfig(encoder=ENCODER, num_steps=2))
    folder = tmp_path / "workers"
    monkeypatch.setenv(workers.FOLDER, str(folder))
    first = {workers.FOLDER: str(folder), "TF_CONFIG": tf_config(0)}
    monkeypatch.setenv("TF_CONFIG", first["TF_CONFIG"])
    # A Trainer whose result is in the cache has called nobody.
    workers.tell_end(first)
    assert not folder.exists()
    run = workers.shared(workers.run_fn)
    run(fn_args)
    with ThreadPoolExecutor() as threads:
        one = threads.submit(workers.follow, str(folder), 1, poll_s=0.01)
        with pytest.raises(TimeoutError):
            one.result(timeout=0.3)
        # Another worker cannot say it, and a lost attempt has not ended.
        workers.tell_end(first | {"TF_CONFIG": tf_config(1)})
        run(fn_args)
        with pytest.raises(LostWorkerError, match="has begun again: start this one again, too"):
            one.result(timeout=10)
        two = threads.submit(workers.follow, str(folder), 1, poll_s=0.01)
        workers.tell_end(first)
        assert two.result(timeout=10) == "components.trainers.workers.run_fn"


@pytest.mark.parametrize("text", ["{", "{}", '{"run_fn": "os.system", "attempt": ""}'])
def test_arguments_that_are_damaged_are_named(text, tmp_path):
    (tmp_path / "arguments.json").write_text(text)
    with pytest.raises(DamagedFileError, match=r"arguments.json: .* start all workers again"):
        workers.follow(str(tmp_path), 1, poll_s=0.01)


@pytest.fixture
def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.e2e
def test_two_processes_pretrain_and_the_first_alone_writes(pairs_version, tmp_path, free_ports):
    config = PretrainConfig(
        encoder=ENCODER,
        num_steps=2,
        global_batch_size=4,
        num_eval_batches=1,
        # Both serve themselves their shares of an epoch.
        input=InputConfig(data_service="workers", deterministic=False),
    )
    folder = tmp_path / "workers"
    commands = [
        [
            sys.executable,
            "-m",
            "tests.data.faults.first_worker",
            str(pairs_version),
            str(tmp_path),
            settings.canonical_json(config),
        ],
        [sys.executable, "-m", "pipeline", "follow", "--poll", "0.1"],
    ]
    processes = [
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "TF_CONFIG": tf_config(index, free_ports),
                workers.FOLDER: str(folder),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, command in enumerate(commands)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=500)
        assert process.returncode == 0, stderr[-3000:]
    assert set(export.load_encoders(str(tmp_path / "Format-Serving"))) == {"s1", "s2"}
    ours, theirs = (
        json.loads((tmp_path / name / "metrics.json").read_text())
        for name in ("model_run", "workers/worker-1")
    )
    # Both computed the loss over the batches of both.
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-6)
