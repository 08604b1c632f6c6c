"""Compare the rate of the input pipeline with the rate of the training that it feeds.

The training is a ResNet-18 dual encoder on 64 px, batch 32 and 2 + 13 bands. The shards
are gzipped test shards whose noise resembles that of real pairs. Training is measured
on a batch in memory (`training_speed`), so neither rate depends on the other.
"""

import itertools
import tempfile
import time

from tests.benchmarks.training import peers, training_speed

SHAPE = ("resnet18", 32, 64)
NUM_PAIRS = 1_024
NUM_EPOCHS = 5
CACHES = ("none", "disk", "memory")


def measure() -> dict[str, object]:
    """Return the rates in pairs per second, and the ratios of input to training.

    The pipeline has a rate for each kind of cache, training one for each precision.
    """
    from beam_jobs.contracts import layout, manifest
    from beam_jobs.contracts.bands import S2_L1C_BANDS
    from tests.data.shards import make_shards

    _, batch_size, size_px = SHAPE
    with tempfile.TemporaryDirectory() as root:
        version = make_shards.make_version(
            root, num_patches=NUM_PAIRS, size_px=size_px, s2_bands=S2_L1C_BANDS
        )
        files = [str(path) for path in layout.shard_paths(version, "train")]
        found = manifest.read(version)
        num_bytes = sum(
            entry.num_bytes for name, entry in found.shards.items() if name.startswith("train/")
        )
        rates = {cache: _pairs_per_second(files, found, cache, root) for cache in CACHES}
    trained = {
        precision: batch_size / peers.seconds_per_step(training_speed.command(SHAPE, precision))
        for precision in peers.PRECISIONS
    }
    return {
        "shard_bytes_per_pair": round(num_bytes / NUM_PAIRS),
        "input_pairs_per_second": {cache: round(rate) for cache, rate in rates.items()},
        "training_pairs_per_second": {
            precision: round(rate, 1) for precision, rate in trained.items()
        },
        "input_over_training": {
            f"{cache}/{precision}": round(rates[cache] / trained[precision], 1)
            for cache, precision in itertools.product(rates, trained)
        },
    }


def _pairs_per_second(files: list[str], found, cache: str, root: str) -> float:
    """Return the rate of the batches that pretraining reads.

    One epoch is not counted: tf.data needs it to tune its parallelism.
    """
    from beam_jobs.contracts.bands import SENSORS
    from models import input_pipeline
    from models.config import EncoderConfig, InputConfig, PretrainConfig
    from models.reading.epochs import EpochPlan
    from models.views import train_views

    config = PretrainConfig(encoder=EncoderConfig(backbone="resnet18"), num_steps=1)
    batch_size, num_batches = SHAPE[1], NUM_PAIRS // SHAPE[1]
    dataset = input_pipeline.train_dataset(
        files,
        input_pipeline.Features(
            num_bands=training_speed.NUM_BANDS,
            with_weight=True,
            with_patch_id=True,
        ),
        EpochPlan(
            num_examples=NUM_PAIRS,
            batch_size=batch_size,
            shuffle_buffer=256,
            seed=0,
        ),
        transform=train_views(config, SENSORS, found),
        reading=InputConfig(cache=cache, cache_dir=f"{root}/cache" if cache == "disk" else ""),
    )
    batches = iter(dataset)
    for _ in itertools.islice(batches, num_batches):
        pass
    begun = time.perf_counter()
    for _ in itertools.islice(batches, NUM_EPOCHS * num_batches):
        pass
    return NUM_EPOCHS * NUM_PAIRS / (time.perf_counter() - begun)
