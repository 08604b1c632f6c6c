"""A tf.data service as a user starts it: two server processes feed this one."""

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from beam_jobs.contracts import layout
from models import input_pipeline
from models.config import InputConfig
from models.reading.epochs import EpochPlan
from tests.data.runs.repository import REPOSITORY
from tests.data.shards import make_shards


@contextmanager
def server(*arguments):
    """Return the first line that it prints when it is ready."""
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", "data-service", *arguments],
        cwd=REPOSITORY,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.e2e
def test_a_dispatcher_and_a_worker_feed_a_trainer(tmp_path):
    version = make_shards.make_version(tmp_path, num_patches=10, size_px=16)
    with ExitStack() as servers:
        name, address = servers.enter_context(server()).split()
        assert name == "dispatcher"
        ready = servers.enter_context(server("--dispatcher", address, "--host", "localhost"))
        assert ready == f"worker of {address} on localhost"
        dataset = input_pipeline.train_dataset(
            [str(path) for path in layout.shard_paths(version, "train")],
            input_pipeline.Features(
                num_bands={"s1": 2},
                with_patch_id=True,
            ),
            EpochPlan(
                num_examples=10,
                batch_size=5,
                shuffle_buffer=8,
                seed=0,
            ),
            reading=InputConfig(deterministic=False, data_service=address),
        )
        batches = list(dataset.take(2).as_numpy_iterator())
    assert len({name for batch in batches for name in batch["patch_id"]}) == 10
