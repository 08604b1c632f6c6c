"""tf.data service: reading and decoding on other machines than the training.

Input: a dataset of the shards and the dispatcher's address. Output: its batches, made
by the servers. They are other machines, which `terrapair data-service` starts, or the
processes that train: then each reads, decodes and augments its own share of an epoch,
and no pixels cross the network. All processes of one training share its epochs.
Source: Audibert et al. 2023, arXiv 2210.14826;
https://www.tensorflow.org/api_docs/python/tf/data/experimental/service.
"""

from __future__ import annotations

import functools
import socket
import time
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from models.config import SERVED_BY_WORKERS
from models.reading import loopback
from models.training import distribution

PROTOCOL = "grpc://"


@dataclass(frozen=True, kw_only=True)
class Service:
    """A tf.data service as a process that trains sees it.

    Attributes:
        address: of the dispatcher, grpc://host:port.
        num_readers: processes that share each epoch.
        job: name by which they share it; None = this process reads alone.
        target: servers that this process reads from: "ANY", or the "LOCAL" one in
            itself.
    """

    address: str
    num_readers: int = 1
    job: str | None = None
    target: Literal["ANY", "LOCAL"] = "ANY"


def join(setting: str) -> Service:
    """Return the service of a training; start its servers if they belong to it.

    All processes of the training must call this together.

    Args:
        setting: see `InputConfig.data_service`.

    Raises:
        OSError: a port cannot be shut to other machines.
    """
    num_readers = distribution.num_workers() or 1
    job = None
    if num_readers > 1:
        # A name of its own for each attempt: after a kill, the dispatcher still knows
        # the half-read epoch of the attempt before.
        started = distribution.value_of_chief(distribution.get_strategy(), time.time())
        job = f"terrapair-{started!r}"
    if setting == SERVED_BY_WORKERS:
        address = _serve_ourselves().address
        return Service(address=address, num_readers=num_readers, job=job, target="LOCAL")
    return Service(address=setting, num_readers=num_readers, job=job)


@dataclass(frozen=True, kw_only=True)
class _Servers:
    """The servers in this process, which live as long as this object."""

    address: str
    dispatcher: tf.data.experimental.service.DispatchServer | None
    worker: tf.data.experimental.service.WorkerServer


@functools.cache
def _serve_ourselves() -> _Servers:
    """Start a server in each process that trains, and a dispatcher in the chief's."""
    strategy = distribution.get_strategy()
    chief, own = distribution.hosts()
    dispatcher = start_dispatcher(0, own) if distribution.is_chief(strategy) else None
    port = 0 if dispatcher is None else int(dispatcher.target.rpartition(":")[2])
    # The chief alone knows the port.
    address = f"{PROTOCOL}{chief}:{distribution.value_of_chief(strategy, port):.0f}"
    return _Servers(address=address, dispatcher=dispatcher, worker=start_worker(address, own, 0))


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


def distribute(dataset: tf.data.Dataset, service: Service) -> tf.data.Dataset:
    """Return `dataset`, produced by the servers of a service.

    Each pass takes every shard once, in the order in which servers answer. Readers of
    one job get different batches of a pass. When a server dies, its shards are lost for
    that pass.
    """
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=service.address,
            job_name=service.job,
            target_workers=service.target,
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
