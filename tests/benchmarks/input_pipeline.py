"""The input pipeline alone against the training that it feeds: ResNet-18 dual encoder, 64 px, batch 32, 2 + 13 bands.

Shards are those of the tests, gzipped, of noise like that of real pairs. Training is
measured on a batch that is there already (`training_speed`), so the two rates are each
one's own.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import training_speed

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

SHAPE = ("resnet18", 32, 64)
NUM_PAIRS = 1_024
NUM_EPOCHS = 5
CACHES = ("none", "disk", "memory")


def measure() -> dict[str, object]:
    """Pairs per second of the pipeline by cache and of training by precision, and how many times faster the first are."""
    import make_shards

    from beam_jobs.contracts import layout, manifest
    from beam_jobs.contracts.bands import S2_L1C_BANDS

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
        precision: batch_size / training_speed.seconds_per_step(SHAPE, precision)
        for precision in training_speed.PRECISIONS
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
    """Of the batches that `pretrain.py` makes, after an epoch in which tf.data finds its parallelism."""
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
