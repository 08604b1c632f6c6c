"""tf.data service: reading and decoding on other machines than the training.

Input: a dataset whose source is the shards, the dispatcher's address. Output: its
batches, made by the workers. Called by `epochs.py`; `python -m pipeline data-service`
starts the servers.
Source: Audibert et al. 2023, arXiv 2210.14826;
https://www.tensorflow.org/api_docs/python/tf/data/experimental/service.
"""

from __future__ import annotations

import tensorflow as tf

PROTOCOL = "grpc://"


def start_dispatcher(port: int) -> tf.data.experimental.service.DispatchServer:
    """The server that hands shards to workers; it runs until the object is deleted. Port 0 = any free one."""
    return tf.data.experimental.service.DispatchServer(
        tf.data.experimental.service.DispatcherConfig(port=port)
    )


def start_worker(
    dispatcher: str, host: str, port: int
) -> tf.data.experimental.service.WorkerServer:
    """A server that reads and decodes; it runs until the object is deleted.

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
    """`dataset`, produced by the workers of the dispatcher at `address`; each pass over it takes every shard once.

    The order is the one in which workers answer. A shard in the hands of a worker that
    dies is lost for that pass.
    """
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=address,
            # Noisy pixels hardly shrink; unpacking would be all that the trainer's
            # processor does.
            compression=None,
        )
    )


def fresh_seed() -> tf.Tensor:
    """int64 [], another one whenever the graph comes by.

    A worker starts each pass from the graph as it was sent: seeds made here, at the
    trainer, would repeat with every epoch.
    """
    return tf.cast(tf.timestamp() * 1e6, tf.int64)
