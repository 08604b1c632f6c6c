"""Where training runs: one device, all devices of this machine, or several machines.

Input: the visible devices and TF_CONFIG. Output: the process's
`tf.distribute.Strategy`. It must be made before anything else uses TensorFlow's
devices.
"""

from __future__ import annotations

import functools

import tensorflow as tf


@functools.cache
def get_strategy() -> tf.distribute.Strategy:
    """Return the strategy of this process.

    It is MultiWorkerMirroredStrategy when TF_CONFIG names several workers, else
    MirroredStrategy over all visible GPUs or over all logical CPUs. For a single CPU it
    is the default strategy.

    There is one per process. A second MirroredStrategy would number its collective
    operations from the start again, and they would collide with those of an earlier
    training in the same process ("Collective ops is aborted").
    """
    if _num_workers() > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1 and devices[0].device_type == "CPU":
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process writes checkpoints, logs and the model."""
    resolver = strategy.cluster_resolver
    # Without a task of type "chief", the first worker is the chief.
    return (
        resolver is None
        or not resolver.task_type
        or resolver.task_type == "chief"
        or (
            resolver.task_type == "worker"
            and resolver.task_id == 0
            and "chief" not in resolver.cluster_spec().jobs
        )
    )


def check_divisible(global_batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Refuse a global batch that cannot be split evenly.

    Raises:
        ValueError: replicas would get batches of unequal size, whose embeddings cannot
            be gathered.
    """
    num_replicas = strategy.num_replicas_in_sync
    if global_batch_size % num_replicas:
        raise ValueError(
            f"global_batch_size must be a multiple of the {num_replicas} replicas, "
            f"got {global_batch_size}"
        )


def check_same_on_workers(strategy: tf.distribute.Strategy, name: str, value: int) -> None:
    """Refuse to continue when the workers have different values.

    The workers wait for each other here. A single worker always passes.

    Raises:
        RuntimeError: another worker has another value.
    """
    if strategy.cluster_resolver is None:
        return
    values = strategy.gather(strategy.run(lambda: tf.constant([value])), axis=0).numpy().tolist()
    if set(values) != {value}:
        raise RuntimeError(
            f"{name} must be the same on all workers, got {values}: they need one shared folder"
        )


def value_of_chief(strategy: tf.distribute.Strategy, value: float) -> float:
    """Return the chief's value on all workers; `value` itself when there is one worker.

    The workers wait for each other here. A decision by the chief's value is the same on
    all of them.
    """
    if strategy.cluster_resolver is None:
        return value
    # The chief's replicas are the first ones.
    values = strategy.gather(strategy.run(lambda: tf.constant([value], tf.float64)), axis=0)
    return float(values[0])


def _num_workers() -> int:
    spec = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    return sum(spec.num_tasks(job) for job in spec.jobs if job in ("chief", "worker"))
