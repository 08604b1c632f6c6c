"""The input pipeline alone against the training that it feeds: ResNet-18 dual encoder, 64 px, batch 32, 2 + 13 bands, float32.

Shards are those of the tests, gzipped, of noise like that of real pairs. Training is measured on one batch that is there
already, so the two rates are each one's own.
"""

import functools
import itertools
import sys
import tempfile
import time
from pathlib import Path

import tensorflow as tf

from beam_jobs.contracts import layout, manifest
from beam_jobs.contracts.bands import S2_L1C_BANDS, SENSORS
from models import augment, input_pipeline, training
from models.config import EncoderConfig, InputConfig, PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import build_dual_encoder
from models.encoders import build_encoder
from models.objectives.registry import make_objective
from models.steps import TwoStageLoss
from models.views import make_views

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import make_shards

SIZE_PX = 64
BATCH_SIZE = 32
NUM_PAIRS = 1_024
NUM_EPOCHS = 4
NUM_TRAINING_STEPS = 8


def measure() -> dict[str, object]:
    """Pairs per second of the pipeline with each cache, of training, and how many times faster the first are."""
    with tempfile.TemporaryDirectory() as root:
        version = make_shards.make_version(root, num_patches=NUM_PAIRS, size_px=SIZE_PX, s2_bands=S2_L1C_BANDS)
        found = manifest.read(version)
        files = [str(path) for path in layout.shard_paths(version, "train")]
        rates, batches = {}, None
        for cache in ("none", "disk", "memory"):
            reading = InputConfig(cache=cache, cache_dir=f"{root}/cache" if cache == "disk" else "")
            batches = iter(_dataset(files, found, reading))
            rates[cache] = _pairs_per_second(batches)
        training_rate = _training_rate(found, next(batches))
        shard_bytes = sum(entry.num_bytes for name, entry in found.shards.items() if name.startswith("train/"))
    return {
        "bytes_per_pair": round(shard_bytes / NUM_PAIRS),
        "training_pairs_per_second": round(training_rate, 1),
        "input_pairs_per_second": {cache: round(rate) for cache, rate in rates.items()},
        "times_training": {cache: round(rate / training_rate, 1) for cache, rate in rates.items()},
    }


def _dataset(files: list[str], found: manifest.Manifest, reading: InputConfig) -> tf.data.Dataset:
    """As `pretrain.py` makes it."""
    return input_pipeline.train_dataset(
        files,
        num_examples=NUM_PAIRS,
        num_bands={"s1": len(found.s1_bands), "s2": len(found.s2_bands)},
        with_label=False,
        batch_size=BATCH_SIZE,
        shuffle_buffer=256,
        augment=True,
        seed=0,
        with_weight=True,
        transform=lambda batch, seed: make_views(batch, SENSORS, augment.random_symmetry, seed),
        reading=reading,
    )


def _pairs_per_second(batches: "tf.data.Iterator") -> float:
    num_batches = NUM_PAIRS // BATCH_SIZE
    # The first epoch also starts threads and lets tf.data find its parallelism.
    for _ in itertools.islice(batches, num_batches):
        pass
    begun = time.perf_counter()
    for _ in itertools.islice(batches, NUM_EPOCHS * num_batches):
        pass
    return NUM_EPOCHS * NUM_PAIRS / (time.perf_counter() - begun)


def _training_rate(found: manifest.Manifest, batch: dict[str, tf.Tensor]) -> float:
    """Pairs per second of the median step."""
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="resnet18"), num_steps=NUM_TRAINING_STEPS, global_batch_size=BATCH_SIZE
    )
    encoders = {sensor: build_encoder(config.encoder, sensor, found) for sensor in SENSORS}
    dual_encoder = build_dual_encoder(encoders, config.encoder.embedding_dim)
    model = ContrastiveModel(dual_encoder, make_objective(config, encoders["s1"].output["features"].shape[-1]))
    ends: list[float] = []
    training.train(
        strategy=tf.distribute.get_strategy(),
        model=model,
        compute_loss=TwoStageLoss(
            encode=functools.partial(model.encode, training=True), loss=model.replica_scalars, num_micro_batches=1
        ),
        optimizer=training.make_optimizer(config.optimizer, config.num_steps),
        dataset=tf.data.Dataset.from_tensors(batch).repeat(),
        num_steps=config.num_steps,
        log_dir=tempfile.mkdtemp(),
        on_step=lambda step, num_steps, scalars: ends.append(time.perf_counter()),
    )
    # The first steps build the graphs.
    seconds = sorted(later - earlier for earlier, later in itertools.pairwise(ends[1:]))
    return BATCH_SIZE / seconds[len(seconds) // 2]
