"""Several workers of one training: the first runs the Trainer, the others follow it.

TFX's Trainer is one process. `shared` lets its `run_fn` write the arguments that it
gets into a folder that all workers read. `follow` waits for them in another process,
and calls the same `run_fn`. Then `tf.distribute` trains on all workers, and the first
one alone writes checkpoints and the model, which the pipeline goes on with.

A follower ends after the first worker. If it ended before, a first worker that is lost
while it publishes would start again alone, and wait for the others for ever.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tfx.components.trainer.fn_args_utils import FnArgs

from beam_jobs.contracts.locations import Location, content_of, locate, staged
from beam_jobs.contracts.settings import SettingsError
from models.training.distribution import LostWorkerError

FOLDER = "TERRAPAIR_WORKERS_DIR"
"""Environment variable with the folder of one training, on all its workers."""
_TF_CONFIG = "TF_CONFIG"
_ARGUMENTS = "arguments.json"
_ENDED = "ended.json"
_ATTEMPT = "attempt"
"""Key of both files: the attempt of the first worker that wrote them."""
_CURE = "remove it and start all workers again"
_FIELDS = (
    *("train_files", "eval_files", "hyperparameters", "custom_config", "base_model"),
    *("serving_model_dir", "model_run_dir"),
)
"""What our functions read of FnArgs. The rest cannot be written as JSON."""
RunFn = Callable[[FnArgs], None]


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
            document[_ATTEMPT] = uuid.uuid4().hex
            with staged(locate(folder) / _ARGUMENTS) as file:
                file.write_text(json.dumps(document, sort_keys=True))
        run_fn(fn_args)

    return run


def follow(folder: str, index: int, poll_s: float) -> str:
    """Train beside the first worker, wait for its end, and return its `run_fn`.

    The arguments of an earlier try of the first worker are as good: the same training
    has the same ones, and no worker begins before all are there.

    Args:
        folder: see `FOLDER`.
        index: number of this worker, above 0.
        poll_s: time between two looks for the arguments, seconds.

    Raises:
        DamagedFileError: the arguments are not what was written.
        LostWorkerError: the first worker was lost and trains again.
    """
    path = locate(folder) / _ARGUMENTS
    while not path.exists():
        time.sleep(poll_s)
    with content_of(path, _CURE):
        document: dict[str, Any] = json.loads(path.read_text())
        name = document.pop("run_fn")
        document.pop(_ATTEMPT)
        module, _, attribute = name.rpartition(".")
        if not module.startswith("components."):
            raise ValueError(f"run_fn must be one of `components`, got {name!r}")
        fn_args = FnArgs(**document)
    # Logs and metrics are those of the first worker.
    fn_args.model_run_dir = f"{folder.rstrip('/')}/worker-{index}"
    run_fn: RunFn = getattr(importlib.import_module(module), attribute)
    run_fn(fn_args)
    _wait_for_end(locate(folder), poll_s)
    return str(name)


def tell_end(environment: Mapping[str, str]) -> None:
    """Tell the other workers, if any, that the first one does not need them now."""
    folder = environment.get(FOLDER, "")
    if not folder or worker_index(environment) != 0:
        return
    attempt = _attempt_of(locate(folder) / _ARGUMENTS)
    # A Trainer whose result is in the cache has not called the others.
    if attempt is not None:
        with staged(locate(folder) / _ENDED) as file:
            file.write_text(json.dumps({_ATTEMPT: attempt}))


def _wait_for_end(folder: Location, poll_s: float) -> None:
    """Return when the first worker has ended well.

    Raises:
        LostWorkerError: it was lost and trains again.
    """
    # The newest arguments are those of the attempt that has just trained: the first
    # worker writes them before it waits for the others.
    attempt = _attempt_of(folder / _ARGUMENTS)
    while _attempt_of(folder / _ENDED) != attempt:
        if _attempt_of(folder / _ARGUMENTS) != attempt:
            raise LostWorkerError(
                "the first worker was lost after the training and has begun again: start this "
                "one again, too"
            )
        time.sleep(poll_s)


def _attempt_of(path: Location) -> str | None:
    """Return the attempt of the first worker that wrote a file; None: no such file."""
    if not path.exists():
        return None
    with content_of(path, _CURE):
        return str(json.loads(path.read_text())[_ATTEMPT])
