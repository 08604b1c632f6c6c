"""Measure memory and time of the contrastive loss and its gradient by global batch.

With chunks of logits, memory must grow in proportion to the batch. Without chunks, it
grows with the square of the batch.
"""

import json
import subprocess
import sys
import time

from tests.benchmarks import peak_memory

BATCHES = (1_024, 4_096, 16_384)
CHUNK_SIZES = (0, 256)
EMBEDDING_DIM = 128


def measure() -> dict[str, object]:
    """Return the peak memory and the time of each size.

    Each size runs in its own process. The figure is the peak above the memory that the
    process holds after a tiny batch.
    """
    result: dict[str, object] = {}
    for chunk_size in CHUNK_SIZES:
        for num_pairs in BATCHES:
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "tests.benchmarks.training.loss_memory",
                str(num_pairs),
                str(chunk_size),
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            name = f"{num_pairs}/{f'chunks of {chunk_size}' if chunk_size else 'whole'}"
            result[name] = json.loads(done.stdout)
    return result


def _measure_one(num_pairs: int, chunk_size: int | None) -> dict[str, float]:
    import tensorflow as tf

    from models.config import EncoderConfig, PretrainConfig
    from models.objectives.registry import make_objective

    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=EMBEDDING_DIM),
        num_steps=1,
        global_batch_size=num_pairs,
        logits_chunk_size=chunk_size,
    )
    objective = make_objective(config, features_dim=EMBEDDING_DIM)

    @tf.function(jit_compile=False, reduce_retracing=True)
    def gradient(s1: tf.Tensor, s2: tf.Tensor) -> list[tf.Tensor]:
        ones = tf.ones_like(s1[:, 0])
        with tf.GradientTape() as tape:
            tape.watch([s1, s2])
            losses, _ = objective.losses_and_figures(
                {"s1": s1, "s2": s2, "weight": ones, "valid": ones}
            )
        return tape.gradient(losses, [s1, s2])

    def rows(seed: int, num_rows: int) -> tf.Tensor:
        return tf.math.l2_normalize(
            tf.random.stateless_normal([num_rows, EMBEDDING_DIM], [seed, 0]), axis=1
        )

    # The length is unknown to the graph, so the tiny batch and the large one share it.
    gradient = gradient.get_concrete_function(
        *[tf.TensorSpec([None, EMBEDDING_DIM], tf.float32)] * 2
    )
    gradient(rows(0, 8), rows(1, 8))
    s1, s2 = rows(0, num_pairs), rows(1, num_pairs)
    peak_mib = peak_memory.start()
    start = time.perf_counter()
    gradient(s1, s2)
    return {"peak_mib": round(peak_mib(), 1), "seconds": round(time.perf_counter() - start, 2)}


if __name__ == "__main__":
    print(json.dumps(_measure_one(int(sys.argv[1]), int(sys.argv[2]) or None)))
