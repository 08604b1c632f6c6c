"""Workers of one training: what the first tells the others, and a pretraining of two."""

import json
import os
import socket
import subprocess
import sys

import pytest
import tensorflow as tf
from make_fn_args import make_fn_args
from repository import REPOSITORY
from tfx.components.trainer.fn_args_utils import FnArgs

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import DamagedFileError
from beam_jobs.contracts.object_store import UnreachableStoreError
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.terminal.failures import failure_of
from components import workers
from models.config import EncoderConfig, PretrainConfig
from models.published import export
from pipeline.runners.retrying import is_transient

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
    """Give `components.workers` a run_fn, and return what it was called with."""
    found = []

    def run_fn(fn_args):
        found.append(fn_args)

    run_fn.__module__ = "components.workers"
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
    assert workers.follow(str(folder), 1, poll_s=0.01) == "components.workers.run_fn"
    *own, followed = calls
    assert own == [fn_args] * 3
    assert followed.model_run_dir == f"{folder}/worker-1"
    for name in ("train_files", "eval_files", "hyperparameters", "custom_config", "base_model"):
        assert getattr(followed, name) == getattr(fn_args, name)
    assert followed.serving_model_dir == fn_args.serving_model_dir


@pytest.mark.parametrize("text", ["{", "{}", '{"run_fn": "os.system"}'])
def test_arguments_that_are_damaged_are_named(text, tmp_path):
    (tmp_path / "arguments.json").write_text(text)
    with pytest.raises(DamagedFileError, match=r"arguments.json: .* start all workers again"):
        workers.follow(str(tmp_path), 1, poll_s=0.01)


FAULTS = [
    tf.errors.UnavailableError(
        None, None, "Collective ops is aborted by: Connection reset by peer"
    ),
    UnreachableStoreError("s3://bucket/run: no connection"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["worker", "store"])
def test_a_fault_of_one_worker_is_not_tried_again_in_its_process(fault, tmp_path, monkeypatch):
    def run_fn(_):
        raise fault

    run_fn.__module__ = "components.workers"
    monkeypatch.setattr(workers, "run_fn", run_fn, raising=False)
    fn_args = FnArgs(train_files=[], hyperparameters={}, model_run_dir=str(tmp_path))
    run = workers.shared(run_fn)
    # Alone, the same training may succeed a moment later.
    with pytest.raises(type(fault)) as alone:
        run(fn_args)
    assert is_transient(alone.value)
    monkeypatch.setenv(workers.FOLDER, str(tmp_path / "workers"))
    monkeypatch.setenv("TF_CONFIG", tf_config(0))
    with pytest.raises(
        workers.LostWorkerError, match=r"^worker 0 lost another .* last check"
    ) as one:
        run(fn_args)
    with pytest.raises(workers.LostWorkerError, match=r"^worker 1 lost another") as two:
        workers.follow(str(tmp_path / "workers"), 1, poll_s=0.01)
    for error in (one.value, two.value):
        assert not is_transient(error)
        # The Job must start a pod again that ends so.
        assert failure_of(error).exit_code == 1


@pytest.fixture
def free_ports():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


FIRST = """
import json, sys
from pathlib import Path
from make_fn_args import make_fn_args
from beam_jobs.contracts import settings
from components.pretrain_trainer import run_fn
from models.config import PretrainConfig
version, root, config = sys.argv[1:]
custom = {"checkpoints_dir": f"{root}/checkpoints", "code": "abc"}
config = settings.from_dict(PretrainConfig, json.loads(config))
run_fn(make_fn_args(Path(version), Path(root), config, **custom))
"""


@pytest.mark.e2e
def test_two_processes_pretrain_and_the_first_alone_writes(pairs_version, tmp_path, free_ports):
    config = PretrainConfig(encoder=ENCODER, num_steps=2, global_batch_size=4, num_eval_batches=1)
    folder = tmp_path / "workers"
    commands = [
        [
            sys.executable,
            "-c",
            FIRST,
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
                "PYTHONPATH": os.pathsep.join(
                    [str(REPOSITORY), str(REPOSITORY / "tests" / "data"), *sys.path]
                ),
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
