"""Several workers of one training: the first runs the Trainer, the others follow it.

TFX's Trainer is one process. `shared` lets its `run_fn` write the arguments that it
gets into a folder that all workers read. `follow` waits for them in another process,
and calls the same `run_fn`. Then `tf.distribute` trains on all workers, and the first
one alone writes checkpoints and the model, which the pipeline goes on with.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from beam_jobs.contracts.errors import TerrapairError
from beam_jobs.contracts.locations import content_of, locate, staged
from beam_jobs.contracts.object_store import UnreachableStoreError
from beam_jobs.contracts.settings import SettingsError

FOLDER = "TERRAPAIR_WORKERS_DIR"
"""Environment variable with the folder of one training, on all its workers."""
_TF_CONFIG = "TF_CONFIG"
_ARGUMENTS = "arguments.json"
_FIELDS = (
    *("train_files", "eval_files", "hyperparameters", "custom_config", "base_model"),
    *("serving_model_dir", "model_run_dir"),
)
"""What our functions read of FnArgs. The rest cannot be written as JSON."""
_FAULTS = (
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError),
    *(ConnectionError, TimeoutError, UnreachableStoreError),
)
"""Faults of the network; those of TensorFlow are also those of the other workers."""
RunFn = Callable[[FnArgs], None]


class LostWorkerError(TerrapairError, RuntimeError):
    """This worker lost the others, or its store. Only a new process can train on."""


def worker_index(environment: Mapping[str, str]) -> int:
    """Return the number of this worker, 0 for the first or only one.

    Raises:
        SettingsError: TF_CONFIG is not what `tf.distribute` takes.
    """
    text = environment.get(_TF_CONFIG, "{}")
    try:
        return int(json.loads(text).get("task", {}).get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{_TF_CONFIG}: must be JSON with cluster and task, as tf.distribute takes it, got "
            f"{text!r}"
        ) from error


def shared(run_fn: RunFn) -> RunFn:
    """Return a `run_fn` that also tells its arguments to the other workers, if any."""

    @functools.wraps(run_fn)
    def run(fn_args: FnArgs) -> None:
        folder = os.environ.get(FOLDER, "")
        if folder and worker_index(os.environ) == 0:
            document = {name: getattr(fn_args, name) for name in _FIELDS}
            document["run_fn"] = f"{run_fn.__module__}.{run_fn.__name__}"
            with staged(locate(folder) / _ARGUMENTS) as file:
                file.write_text(json.dumps(document, sort_keys=True))
            with _beside_others(0):
                run_fn(fn_args)
            return
        run_fn(fn_args)

    return run


def follow(folder: str, index: int, poll_s: float) -> str:
    """Train beside the first worker, as soon as it does, and return its `run_fn`.

    The arguments of an earlier try of the first worker are as good: the same training
    has the same ones, and no worker begins before all are there.

    Args:
        folder: see `FOLDER`.
        index: number of this worker, above 0.
        poll_s: time between two looks for the arguments, seconds.

    Raises:
        DamagedFileError: the arguments are not what was written.
        LostWorkerError: another worker was lost.
    """
    path = locate(folder) / _ARGUMENTS
    while not path.exists():
        time.sleep(poll_s)
    with content_of(path, "remove it and start all workers again"):
        document: dict[str, Any] = json.loads(path.read_text())
        name = document.pop("run_fn")
        module, _, attribute = name.rpartition(".")
        if not module.startswith("components."):
            raise ValueError(f"run_fn must be one of `components`, got {name!r}")
        fn_args = FnArgs(**document)
    # Logs and metrics are those of the first worker.
    fn_args.model_run_dir = f"{folder.rstrip('/')}/worker-{index}"
    run_fn: RunFn = getattr(importlib.import_module(module), attribute)
    with _beside_others(index):
        run_fn(fn_args)
    return str(name)


@contextmanager
def _beside_others(index: int) -> Iterator[None]:
    """Raise one line for a fault after which no worker can train on.

    The faults are those that a node tries again. A process that has lost another
    worker would fail each time: TensorFlow begins no second training of several
    workers in it.

    Raises:
        LostWorkerError: in place of such a fault.
    """
    try:
        yield
    except _FAULTS as error:
        raise LostWorkerError(
            f"worker {index} lost another worker, or the store ({type(error).__name__}): start all "
            "workers again, as the Job does; they go on from the last checkpoint"
        ) from error
