"""Compare the time of a training step of a segmenter with plain PyTorch.

The segmenter is a U-Net on ResNet-18. Our side uses the project's own training loop,
with its logging, on random pixels in memory. Reading is not measured. The peer,
`peer_unet.py`, runs if TERRAPAIR_PEER_PYTHON names an interpreter that has torch.
"""

import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.training import peers

# Number of patches, side in pixels, number of bands.
SHAPES = ((16, 128, 2), (8, 256, 12))
NUM_CLASSES = 9
PEER_SCRIPT = Path(__file__).with_name("peer_unet.py")


def measure() -> dict[str, object]:
    """Return the comparison for each shape: seconds per step, and speedups."""
    return {
        "{} patches of {} px, {} bands".format(*shape): peers.compare(
            lambda precision, shape=shape: _ours(shape, precision),
            (lambda dtype, shape=shape: _peer(shape, dtype)) if peers.peer_python() else None,
        )
        for shape in SHAPES
    }


def _ours(shape: tuple[int, int, int], precision: str) -> list[str]:
    return [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.benchmarks.training.segmentation_speed",
        *map(str, shape),
        precision,
    ]


def _peer(shape: tuple[int, int, int], dtype: str) -> list[str]:
    sizes = {
        "batch": shape[0],
        "size": shape[1],
        "bands": shape[2],
        "classes": NUM_CLASSES,
        "steps": peers.NUM_STEPS,
    }
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    return [str(peers.peer_python()), str(PEER_SCRIPT), *options, "--dtype", dtype]


def _measure_one(
    num_patches: int, size_px: int, num_bands: int, precision: str
) -> dict[str, float]:
    import functools

    import tensorflow as tf

    from beam_jobs.contracts.labels import get_schema
    from models import segment
    from models.config import EncoderConfig
    from models.encoders import SensorEncoder
    from models.optimization.optimizers import make_optimizer
    from models.pixel_losses.segment_loss import make_segment_loss
    from models.segment_config import SegmentConfig
    from models.segmenter import Segmenter
    from models.training import training
    from models.training.distribution import get_strategy

    num_steps = peers.NUM_WARMUP_STEPS + peers.NUM_STEPS
    sensor = "s1" if num_bands <= 4 else "s2"
    config = SegmentConfig(
        sensors=(sensor,),
        label_schema="dynamic_world",
        encoder=EncoderConfig(backbone="resnet18"),
        num_steps=num_steps,
        global_batch_size=num_patches,
        precision=precision,
    )
    encoder = SensorEncoder(
        sensor=sensor,
        bands=[f"band{index}" for index in range(num_bands)],
        mean=[0.0] * num_bands,
        std=[1.0] * num_bands,
        backbone="resnet18",
        precision=precision,
    )
    model = Segmenter(
        encoders={sensor: encoder},
        num_classes=NUM_CLASSES,
        decoder_channels=config.decoder_channels,
        precision=precision,
    )
    shape = (num_patches, size_px, size_px)
    batch = {
        sensor: tf.random.stateless_normal([*shape, num_bands], [1, 0]),
        "label": tf.cast(
            tf.random.stateless_uniform(shape, [2, 0], 0, NUM_CLASSES, tf.int32), tf.uint8
        ),
        "weight": tf.ones([num_patches]),
    }
    loss = make_segment_loss(config.loss, get_schema(config.label_schema).class_names, {})
    ends: list[float] = []
    training.train(
        get_strategy(),
        training.Fit(
            model=model,
            compute_loss=functools.partial(segment.replica_loss, config, model, loss),
            optimizer=make_optimizer(config.optimizer, num_steps),
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            num_steps=num_steps,
        ),
        log_dir=tempfile.mkdtemp(),
        on_step=lambda *_: ends.append(time.perf_counter()),
    )
    times = [after - before for before, after in pairwise(ends[peers.NUM_WARMUP_STEPS - 1 :])]
    return {"seconds_per_step": round(statistics.median(times), 4)}


if __name__ == "__main__":
    print(json.dumps(_measure_one(*map(int, sys.argv[1:4]), sys.argv[4])))
