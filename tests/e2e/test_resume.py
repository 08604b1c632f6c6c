"""Kill a pipeline with -9 while it trains, and run it again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from beam_jobs.contracts import layout, manifest
from components.artifacts import METRICS_FILE
from models import pretrain
from models.training.scaffold import Folders, Shards
from pipeline.config import load_run_config
from pipeline.report.run_record import read_last_run
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline_here

NUM_STEPS = 140
CHECKPOINT_EVERY = 7

TOLERANCE = 1e-3
"""Relative difference that is allowed.

CPU threads add in a different order each time, and the steps amplify the difference.
"""


def start(config):
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", "--config", str(config)],
        cwd=REPOSITORY,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_to_end(config):
    """Return what the run printed about its progress. It can end in this process."""
    ended = run_pipeline_here("run", "--config", str(config))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stderr


def config_of(root):
    """Write a smoke run of the encoder alone that is long enough to be killed."""
    values = yaml.safe_load((REPOSITORY / "pipeline/configs/smoke.yaml").read_text())
    changes = {"num_steps": NUM_STEPS, "checkpoint_every": CHECKPOINT_EVERY}
    values |= {"root": str(root), "tasks": [], "pretrain": values["pretrain"] | changes}
    path = root.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return path


def kill_at(process, root, step):
    """Kill the whole process group after a checkpoint of `step` or later exists.

    Wait for a random time first, so the kill hits any moment between two checkpoints.
    """
    deadline = time.monotonic() + 600
    while not any(
        int(path.parent.name[5:]) >= step
        for path in root.glob("checkpoints/*/step-*/progress.json")
    ):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.uniform(0.0, 0.5))
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def undisturbed(config_path, version, folder):
    """Return the metrics of the same training in this process, without checkpoints."""
    train, evaluated = (
        tuple(str(path) for path in layout.shard_paths(version, split))
        for split in ("train", "eval")
    )
    config = load_run_config(config_path, [], {}).pretrain
    return pretrain.run_pretraining(
        config,
        Shards(manifest=manifest.read(version), train=train, eval=evaluated),
        Folders(output=str(folder / "model"), logs=str(folder / "logs")),
        is_served=False,
    )


def trained(config_path):
    """Return the metrics, and the logged steps in order."""
    config = load_run_config(config_path, [], {})
    model_run = Path(
        read_last_run(config.metadata_path, config.name).output("Trainer-pretrain", "model_run").uri
    )
    metrics = yaml.safe_load((model_run / METRICS_FILE).read_text())
    events = [
        event
        for path in sorted((model_run / "train").iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(path))
    ]
    return metrics, [
        event.step for event in events for value in event.summary.value if value.tag == "loss"
    ]


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_run_that_was_killed_twice_while_training_ends_as_if_it_had_not(tmp_path):
    killed = config_of(tmp_path / "killed")
    first = random.randrange(NUM_STEPS // 4, NUM_STEPS // 2)
    kill_at(start(killed), tmp_path / "killed", first)
    kill_at(start(killed), tmp_path / "killed", random.randrange(first, NUM_STEPS * 5 // 8))
    step = max(
        int(path.parent.name[5:])
        for path in tmp_path.glob("killed/checkpoints/pretrain-*/step-*/progress.json")
    )
    version = layout.version_dir(f"{tmp_path}/killed/data/pairs", 1, 1)
    assert step > manifest.read(version).num_examples["train"] // 8, (
        "killed in the first epoch: the resumed run has no epoch to skip"
    )

    assert f"Trainer-pretrain: resumed after step {step} of {NUM_STEPS}" in run_to_end(killed)
    metrics, steps = trained(killed)
    assert metrics == pytest.approx(undisturbed(killed, version, tmp_path), rel=TOLERANCE)
    assert steps == list(range(1, NUM_STEPS + 1))
    assert list((tmp_path / "killed" / "checkpoints").iterdir()) == []
