"""Compare the time of a training step of the ResNet dual encoders with plain PyTorch.

Our side uses the project's own training loop, with its logging, on random pixels in
memory. Reading is not measured.

The peer is a script with the arguments --arch, --batch, --size, --dtype and --steps. It
prints a JSON line with `seconds_per_step`. It runs if TERRAPAIR_PEER_PYTHON names its
interpreter and TERRAPAIR_PEER_SCRIPT names the script.

Each figure is the median of one process. Processes of both sides alternate, so a change
in the machine's speed affects both.
"""

import itertools
import json
import os
import statistics
import sys
import tempfile
import time

from tests.benchmarks.training import peers

# Backbone, number of pairs, side of a patch in pixels.
SHAPES = (("resnet18", 32, 64), ("resnet18", 16, 128), ("resnet50", 32, 64), ("resnet50", 16, 128))
NUM_BANDS = {"s1": 2, "s2": 13}


def measure() -> dict[str, object]:
    """Return the comparison for each shape: seconds per step, and speedups."""
    has_peer = peers.peer_python() and "TERRAPAIR_PEER_SCRIPT" in os.environ
    return {
        "{}, {} pairs of {} px".format(*shape): peers.compare(
            lambda precision, shape=shape: command(shape, precision),
            (lambda dtype, shape=shape: _peer(shape, dtype)) if has_peer else None,
        )
        for shape in SHAPES
    }


def command(shape: tuple[str, int, int], precision: str) -> list[str]:
    """Return the command that measures our step and prints `seconds_per_step`."""
    return [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.training.training_speed",
        *map(str, shape),
        precision,
    ]


def _peer(shape: tuple[str, int, int], dtype: str) -> list[str]:
    options = zip(("--arch", "--batch", "--size", "--dtype"), (*shape, dtype), strict=True)
    words = [str(word) for option in options for word in option]
    return [
        str(peers.peer_python()),
        os.environ["TERRAPAIR_PEER_SCRIPT"],
        *words,
        "--steps",
        str(peers.NUM_STEPS),
    ]


def make_model(backbone: str, precision: str):
    """Return dual encoders of 2 and 13 bands with their objective, untrained."""
    from models.config import EncoderConfig, PretrainConfig
    from models.contrastive_model import ContrastiveModel
    from models.dual_encoder import build_dual_encoder
    from models.encoders import SensorEncoder
    from models.objectives.registry import make_objective

    config = PretrainConfig(encoder=EncoderConfig(backbone=backbone), num_steps=1)
    encoders = {
        sensor: SensorEncoder(
            sensor=sensor,
            bands=[f"band{index}" for index in range(num_bands)],
            mean=[0.0] * num_bands,
            std=[1.0] * num_bands,
            backbone=backbone,
            precision=precision,
        )
        for sensor, num_bands in NUM_BANDS.items()
    }
    return ContrastiveModel(
        build_dual_encoder(encoders, 128), make_objective(config, features_dim=128)
    )


def _measure_one(backbone: str, num_pairs: int, size_px: int, precision: str) -> dict[str, float]:
    import functools

    import tensorflow as tf

    from models.config import EncoderConfig, PretrainConfig
    from models.optimization.optimizers import make_optimizer
    from models.training import training
    from models.training.distribution import get_strategy
    from models.training.steps import TwoStageLoss

    num_steps = peers.NUM_WARMUP_STEPS + peers.NUM_STEPS
    config = PretrainConfig(
        encoder=EncoderConfig(backbone=backbone),
        num_steps=num_steps,
        global_batch_size=num_pairs,
        precision=precision,
    )
    model = make_model(backbone, precision)
    batch = {
        sensor: tf.random.stateless_normal([num_pairs, size_px, size_px, num_bands], [num_bands, 0])
        for sensor, num_bands in NUM_BANDS.items()
    }
    ends: list[float] = []
    training.train(
        get_strategy(),
        training.Fit(
            model=model,
            compute_loss=TwoStageLoss(
                encode=functools.partial(model.encode, training=True), loss=model.replica_scalars
            ),
            optimizer=make_optimizer(config.optimizer, num_steps),
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            num_steps=num_steps,
        ),
        log_dir=tempfile.mkdtemp(),
        on_step=lambda *_: ends.append(time.perf_counter()),
    )
    times = [
        after - before for before, after in itertools.pairwise(ends[peers.NUM_WARMUP_STEPS - 1 :])
    ]
    return {"seconds_per_step": round(statistics.median(times), 4)}


if __name__ == "__main__":
    print(json.dumps(_measure_one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
