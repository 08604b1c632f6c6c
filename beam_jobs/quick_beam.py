"""Quick Beam: what Beam finds out or makes again and again is kept.

Small jobs spend most of their time on it. Importing this module replaces two functions
and a class of Beam for the whole process, so that the jobs of TFX's components gain,
too. Results are the same.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from apache_beam.transforms import core, userstate

ArgumentsAndDefaults = tuple[list[str], list[Any]]
"""Names of a function's arguments, and the values of those that have a default."""
StateAndTimers = tuple[set[userstate.StateSpec], set[userstate.TimerSpec]]
"""State and timers that the methods of a step ask for."""
_NUM_S3_CLIENTS = 4
"""Number of boto3 clients that the threads of a process share.

Threads may share a client (source: "Multithreading or multiprocessing with clients" in
boto3's guide on clients). It keeps 10 connections, and a fetch has 40 requests at a
time."""
_S3_OPTIONS = (
    *("s3_access_key_id", "s3_secret_access_key", "s3_session_token", "s3_endpoint_url"),
    *("s3_region_name", "s3_api_version", "s3_verify", "s3_disable_ssl"),
)
_making_client = threading.Lock()
_thread_numbers = itertools.count()
_local = threading.local()


def remember_arguments(look: Callable[[Any], ArgumentsAndDefaults]) -> Any:
    """Return `look`, which looks at a method of a class once and not for each object.

    Beam looks at the arguments of all methods of each step, eight times a job: a fifth
    of the CPU of a small job of TFDV's statistics (40,000 looks at 380 methods).
    """
    known: WeakKeyDictionary[Callable[..., Any], ArgumentsAndDefaults] = WeakKeyDictionary()

    def remembered(function: Any) -> ArgumentsAndDefaults:
        if not isinstance(function, MethodType):
            return look(function)
        if (found := known.get(function.__func__)) is None:
            found = known[function.__func__] = look(function)
        arguments, defaults = found
        return [*arguments], [*defaults]

    return remembered


def remember_state(look: Callable[[core.DoFn], StateAndTimers]) -> Any:
    """Return `look`, which looks at a class of steps once and not at each step.

    Beam wraps all methods of each step, several times a job, to find state and timers
    that hardly any step has. A step with a method of its own, which its class does not
    have, is looked at each time.
    """
    known: WeakKeyDictionary[type, StateAndTimers] = WeakKeyDictionary()

    def remembered(step: core.DoFn) -> StateAndTimers:
        if any(isinstance(value, MethodType) for value in vars(step).values()):
            return look(step)
        if (found := known.get(type(step))) is None:
            found = known[type(step)] = look(step)
        states, timers = found
        return {*states}, {*timers}

    return remembered


class S3Client(boto3_client.Client):
    """Beam's S3 client over one of a few boto3 clients that all threads share.

    Beam makes a client for each call of its S3 file system, and each would make a boto3
    client, which takes 0.1 s of CPU. The state of a download stays in this object.
    """

    def __init__(self, options: Any) -> None:
        """Take the endpoint and keys from Beam's options, or from the environment."""
        if not hasattr(_local, "number"):
            _local.number = next(_thread_numbers) % _NUM_S3_CLIENTS
        if isinstance(options, PipelineOptions):
            view = options.view_as(S3Options)
            options = {name: getattr(view, name) for name in _S3_OPTIONS}
        environment = tuple(item for item in os.environ.items() if item[0].startswith("AWS_"))
        with _making_client:
            made = _made(tuple(options.items()), environment, os.getpid(), _local.number)
        vars(self).update(vars(made))


@functools.lru_cache(maxsize=2 * _NUM_S3_CLIENTS)
def _made(
    options: tuple[tuple[str, Any], ...],
    environment: tuple[tuple[str, str], ...],
    process: int,
    number: int,
) -> Any:
    """Return Beam's own client of a number in a process; nobody downloads with it."""
    del environment, process, number
    return _BeamClient(dict(options))


_BeamClient = boto3_client.Client
boto3_client.Client = S3Client  # type: ignore[misc]
core.get_function_args_defaults = remember_arguments(core.get_function_args_defaults)
userstate.get_dofn_specs = remember_state(userstate.get_dofn_specs)
