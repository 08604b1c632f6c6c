"""Measure what the input costs two workers of one training, with and without a service.

Without one, each worker reads, decodes and augments whole batches and keeps its rows.
With `data_service: workers`, each does so for its share of an epoch alone. Nothing is
trained here. The shards are those of `input_pipeline`.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile

NUM_WORKERS = 2
NUM_PAIRS = 1_024
NUM_EPOCHS = 4
BATCH_SIZE = 64
SIZE_PX = 64
SERVICES = ("", "workers")


def measure() -> dict[str, object]:
    """Return the CPU time of all workers per pair of the global batches, milliseconds."""
    from beam_jobs.contracts.bands import S2_L1C_BANDS
    from tests.data.shards import make_shards

    with tempfile.TemporaryDirectory() as root:
        version = make_shards.make_version(
            root, num_patches=NUM_PAIRS, size_px=SIZE_PX, s2_bands=S2_L1C_BANDS
        )
        return {
            f"cpu_ms_per_pair, {service or 'no service'}": round(_of_all(str(version), service), 2)
            for service in SERVICES
        }


def _of_all(version: str, service: str) -> float:
    """Return the sum over the workers."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(NUM_WORKERS)]
    hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in free]
    for one in free:
        one.close()
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.benchmarks.training.shared_input",
                version,
                service,
            ],
            env={
                **os.environ,
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
                ),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(NUM_WORKERS)
    ]
    return sum(float(process.communicate()[0].splitlines()[-1]) for process in processes)


def _read(version: str, service: str) -> float:
    """Return the CPU time of this worker for a pair of the global batches."""
    import tensorflow as tf

    from beam_jobs.contracts import layout, manifest
    from beam_jobs.contracts.bands import SENSORS
    from models import input_pipeline
    from models.config import EncoderConfig, InputConfig, PretrainConfig
    from models.reading.epochs import EpochPlan
    from models.training import replicas, training
    from models.training.distribution import get_strategy
    from models.views import train_views
    from tests.benchmarks.training import training_speed

    strategy = get_strategy()
    config = PretrainConfig(encoder=EncoderConfig(backbone="resnet18"), num_steps=1)
    dataset = input_pipeline.train_dataset(
        [str(path) for path in layout.shard_paths(version, "train")],
        input_pipeline.Features(
            num_bands=training_speed.NUM_BANDS, with_weight=True, with_patch_id=True
        ),
        EpochPlan(num_examples=NUM_PAIRS, batch_size=BATCH_SIZE, shuffle_buffer=256, seed=0),
        transform=train_views(config, SENSORS, manifest.read(version)),
        reading=InputConfig(data_service=service, deterministic=not service),
    )
    # Workers of a training wait for each other at each step.
    wait = tf.function(lambda: strategy.run(lambda: replicas.sum_over_replicas(tf.constant(1.0))))
    batches = iter(training._distribute(strategy, dataset))
    begun = 0.0
    for step in range((1 + NUM_EPOCHS) * NUM_PAIRS // BATCH_SIZE):
        if step == NUM_PAIRS // BATCH_SIZE:
            # tf.data needs an epoch to tune its parallelism.
            begun = _cpu_seconds()
        next(batches)
        wait()
    return (_cpu_seconds() - begun) * 1000 / (NUM_EPOCHS * NUM_PAIRS)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    print(_read(*sys.argv[1:]), flush=True)
    # Servers in this process wait for their readers.
    os._exit(0)
