"""Measure memory and time of one update of the small dual encoder by global batch.

Each update is measured with or without cached gradients, that is in micro-batches or in
one piece.
"""

import json
import subprocess
import sys
import tempfile
import time

from tests.benchmarks import peak_memory

# Global batch size and micro-batch size. With micro-batch size 0, the activations of
# the whole batch are kept.
SIZES = ((256, 0), (1_024, 0), (1_024, 64), (4_096, 64))
PATCH_SIZE_PX = 32


def measure() -> dict[str, object]:
    """Return the peak memory and the time of each size.

    Each size runs in its own process. The figure is the peak above the memory that the
    process holds after its imports.
    """
    result: dict[str, object] = {}
    for num_pairs, micro_batch_size in SIZES:
        module = "tests.benchmarks.training.gradient_cache_memory"
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            module,
            str(num_pairs),
            str(micro_batch_size),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        name = f"{num_pairs}/{f'parts of {micro_batch_size}' if micro_batch_size else 'whole'}"
        result[name] = json.loads(done.stdout)
    return result


def _measure_one(num_pairs: int, micro_batch_size: int) -> dict[str, float]:
    import functools

    import tensorflow as tf

    from models.config import EncoderConfig, PretrainConfig
    from models.contrastive_model import ContrastiveModel
    from models.dual_encoder import build_dual_encoder
    from models.encoders import SensorEncoder
    from models.objectives.registry import make_objective
    from models.optimization import optimizers
    from models.training import training
    from models.training.steps import TwoStageLoss

    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", norm="group"),
        num_steps=3,
        global_batch_size=num_pairs,
        logits_chunk_size=64 if micro_batch_size else None,
    )
    options = {"mean": [0.0] * 2, "std": [1.0] * 2, "backbone": "small", "norm": "group"}
    encoders = {
        sensor: SensorEncoder(sensor=sensor, bands=("a", "b"), **options) for sensor in ("s1", "s2")
    }
    model = ContrastiveModel(build_dual_encoder(encoders, 128), make_objective(config, 128))
    shape = [num_pairs, PATCH_SIZE_PX, PATCH_SIZE_PX, 2]
    batch = {
        sensor: tf.random.stateless_normal(shape, [seed, 0])
        for seed, sensor in enumerate(("s1", "s2"))
    }
    peak_mib, ends = peak_memory.start(), [time.perf_counter()]
    training.train(
        tf.distribute.get_strategy(),
        training.Fit(
            model=model,
            compute_loss=TwoStageLoss(
                encode=functools.partial(model.encode, training=True),
                loss=model.replica_scalars,
                num_micro_batches=num_pairs // micro_batch_size if micro_batch_size else 1,
            ),
            optimizer=optimizers.make_optimizer(config.optimizer, config.num_steps),
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            num_steps=config.num_steps,
        ),
        log_dir=tempfile.mkdtemp(),
        on_step=lambda step, num_steps, scalars: ends.append(time.perf_counter()),
    )
    # The first step also builds the graphs. `on_step` reports a step when the next one
    # is done, except the last step, which it reports at once.
    return {"peak_mib": round(peak_mib()), "seconds_per_step": round(ends[2] - ends[1], 2)}


if __name__ == "__main__":
    print(json.dumps(_measure_one(int(sys.argv[1]), int(sys.argv[2]))))
