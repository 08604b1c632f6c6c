"""tf.data service: reading and decoding on other machines than the training.

Input: a dataset of the shards and the dispatcher's address. Output: its batches, made
by the workers. `terrapair data-service` starts the servers.
Source: Audibert et al. 2023, arXiv 2210.14826;
https://www.tensorflow.org/api_docs/python/tf/data/experimental/service.
"""

from __future__ import annotations

import tensorflow as tf

PROTOCOL = "grpc://"


def start_dispatcher(port: int) -> tf.data.experimental.service.DispatchServer:
    """Start the server that gives shards to workers; port 0 = any free one.

    It runs until the returned object is deleted.
    """
    return tf.data.experimental.service.DispatchServer(
        tf.data.experimental.service.DispatcherConfig(port=port)
    )


def start_worker(
    dispatcher: str, host: str, port: int
) -> tf.data.experimental.service.WorkerServer:
    """Start a server that reads and decodes, until the returned object is deleted.

    Args:
        dispatcher: address, grpc://host:port.
        host: name or address under which trainers reach this worker.
        port: 0 = any free one.
    """
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher.removeprefix(PROTOCOL),
        worker_address=f"{host}:%port%",
        port=port,
    )
    return tf.data.experimental.service.WorkerServer(config)


def distribute(dataset: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """Return `dataset`, produced by the workers of the dispatcher at `address`.

    Each pass takes every shard once, in the order in which workers answer. When a
    worker dies, its shards are lost for that pass.
    """
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=address,
            # Noisy pixels hardly shrink, and unpacking would occupy the trainer's
            # processor.
            compression=None,
        )
    )


def fresh_seed() -> tf.Tensor:
    """Return an int64 [] that differs each time the graph runs.

    A worker starts each pass with the same graph, so a seed that the trainer chose
    would repeat in every epoch.
    """
    return tf.cast(tf.timestamp() * 1e6, tf.int64)
