"""Where training runs: one device, all devices of this machine, or several machines.

Input: the visible devices and TF_CONFIG. Output: the process's
`tf.distribute.Strategy`. It must be made before anything else uses TensorFlow's
devices.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import tensorflow as tf

from beam_jobs.contracts.errors import TerrapairError

_TRAINING_JOBS = ("chief", "worker")
"""Jobs of TF_CONFIG whose tasks train; task 0 of the first of them is the chief."""

_SIGNS_OF_LOSS = ("Collective ops is aborted", "CoordinationService", "oordination agent")
"""Parts of TensorFlow's messages when a peer ended, or does not answer for 10 s."""


class LostWorkerError(TerrapairError):
    """Another worker of this training is gone; a new try needs new processes."""


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
    if num_workers() > 1:
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


@contextlib.contextmanager
def named_loss() -> Iterator[None]:
    """Name the loss of another worker when the body fails because of one.

    Raises:
        LostWorkerError: another worker ended or does not answer. This process cannot
            train any more: TensorFlow numbers collective operations in each process.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if num_workers() < 2 or not any(sign in str(error) for sign in _SIGNS_OF_LOSS):
            raise
        raise LostWorkerError(
            "another worker of this training is gone: start all of them again; the training goes "
            f"on from its last checkpoint ({_cause(error)})"
        ) from error


def num_workers() -> int:
    """Return how many processes train together, by TF_CONFIG."""
    spec = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    return sum(spec.num_tasks(job) for job in spec.jobs if job in _TRAINING_JOBS)


def hosts() -> tuple[str, str]:
    """Return the names of the chief's machine and of this one, by TF_CONFIG.

    Both are "localhost" when this process trains alone.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    spec = resolver.cluster_spec()
    if not spec.jobs:
        return "localhost", "localhost"
    first = next(job for job in _TRAINING_JOBS if job in spec.jobs)
    addresses = (
        spec.task_address(first, 0),
        spec.task_address(resolver.task_type, resolver.task_id),
    )
    chief, own = (address.rpartition(":")[0] for address in addresses)
    return chief, own


def _cause(error: tf.errors.OpError) -> str:
    """Return the first line of an error of TensorFlow, without its operation."""
    line: str = error.message.splitlines()[0]
    return line.rpartition("}} ")[2]
