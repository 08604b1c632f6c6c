"""tf.data service: reading and decoding on other machines than the training.

Input: a dataset of the shards and the dispatcher's address. Output: its batches, made
by the workers. `terrapair data-service` starts the servers.
Source: Audibert et al. 2023, arXiv 2210.14826;
https://www.tensorflow.org/api_docs/python/tf/data/experimental/service.
"""

from __future__ import annotations

import socket

import tensorflow as tf

from models.reading import loopback

PROTOCOL = "grpc://"


def start_dispatcher(
    port: int, host: str = "localhost"
) -> tf.data.experimental.service.DispatchServer:
    """Start the server that gives shards to workers, until the result is deleted.

    Args:
        port: 0 = any free one.
        host: name under which others reach the server. With "localhost" it answers this
            machine only; with any other name TensorFlow listens on every interface.

    Raises:
        OSError: the port cannot be shut to other machines.
    """
    server = tf.data.experimental.service.DispatchServer(
        tf.data.experimental.service.DispatcherConfig(port=port)
    )
    _shut_if_local(host, int(server.target.rpartition(":")[2]))
    return server


def start_worker(
    dispatcher: str, host: str, port: int
) -> tf.data.experimental.service.WorkerServer:
    """Start a server that reads and decodes, until the returned object is deleted.

    Args:
        dispatcher: address, grpc://host:port.
        host: name or address under which trainers reach this worker; see
            `start_dispatcher`.
        port: 0 = any free one.

    Raises:
        OSError: the port cannot be shut to other machines.
    """
    port = port or _free_port()
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher.removeprefix(PROTOCOL),
        worker_address=f"{host}:%port%",
        port=port,
    )
    server = tf.data.experimental.service.WorkerServer(config)
    _shut_if_local(host, port)
    return server


def _shut_if_local(host: str, port: int) -> None:
    if host not in loopback.LOCAL_HOSTS:
        return
    try:
        loopback.shut_to_others(port)
    except OSError as error:
        raise OSError(
            f"port {port} cannot be shut to other machines on this system ({error}): "
            "give a host name to listen on every interface"
        ) from error


def _free_port() -> int:
    # The server does not tell which port it took.
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


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
