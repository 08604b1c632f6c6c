"""Checkpoints of a training that is under way: all that the next attempt needs to go on as if nothing had happened.

Input: the variables of model and optimizer, the steps done, the last losses, the
TensorBoard events so far. Output: a folder `step-<n>/` on a disk or an object store,
and the same back. Used by `training.py`. Where data stand follows from the steps done
(`input_pipeline.train_dataset`), so no data are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contracts.errors import ExitCode, TerrapairError

PROGRESS_FILE = "progress.json"
"""Written last and removed first: a folder without it is no checkpoint."""

_VARIABLES = "variables"
_EVENTS = "events"


class CheckpointMismatchError(TerrapairError, ValueError):
    """A checkpoint is of another architecture or optimizer."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Attributes:
        step: updates done.
        last_losses: of the newest steps, oldest first.
        events_dir: the TensorBoard events of all steps done; None = there are none.
    """

    step: int = 0
    last_losses: tuple[float, ...] = ()
    events_dir: str | None = None


class Checkpoints:
    """The newest checkpoint of one training in `folder`; an older one goes when a newer one is whole."""

    def __init__(
        self, folder: str, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        """Looks at nothing yet.

        Args:
            folder: only this training's; it need not exist.
            model: whose weights, statistics and seeds are kept.
            optimizer: whose slots and step counter are kept; must be built.
        """
        self._folder = folder.rstrip("/")
        self._variables = [*model.variables, *optimizer.variables]

    def restore(self) -> Progress | None:
        """Sets all variables to those of the checkpoint; None when there is none.

        Raises:
            CheckpointMismatchError: it is of other variables than these.
        """
        whole = sorted(
            os.path.dirname(path)
            for path in tf.io.gfile.glob(f"{self._folder}/step-*/{PROGRESS_FILE}")
        )
        if not whole:
            return None
        path = whole[-1]
        with tf.io.gfile.GFile(f"{path}/{PROGRESS_FILE}") as file:
            record = json.loads(file.read())
        _check_same(path, record["variables"], self._describe())
        self._as_checkpoint().read(f"{path}/{_VARIABLES}").assert_existing_objects_matched()
        losses = tuple(record["last_losses"])
        return Progress(step=record["step"], last_losses=losses, events_dir=f"{path}/{_EVENTS}")

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint with a copy of the events, which must be flushed; then older ones are removed."""
        path = f"{self._folder}/step-{progress.step:09d}"
        # What a killed attempt left half written.
        _remove(path)
        tf.io.gfile.makedirs(path)
        self._as_checkpoint().write(f"{path}/{_VARIABLES}")
        replace_files(progress.events_dir, f"{path}/{_EVENTS}")
        record = {
            "step": progress.step,
            "last_losses": progress.last_losses,
            "variables": self._describe(),
        }
        with tf.io.gfile.GFile(f"{path}/{PROGRESS_FILE}.part", "w") as file:
            file.write(json.dumps(record))
        # All or nothing: a kill within the write must not leave half a JSON under the
        # name that counts.
        tf.io.gfile.rename(
            f"{path}/{PROGRESS_FILE}.part", f"{path}/{PROGRESS_FILE}", overwrite=True
        )
        for other in tf.io.gfile.glob(f"{self._folder}/step-*"):
            if other.rstrip("/") != path:
                _remove(other.rstrip("/"))

    def _as_checkpoint(self) -> tf.train.Checkpoint:
        # By place, not by name: Keras numbers its names anew in each process.
        return tf.train.Checkpoint(variables=[variable.value for variable in self._variables])

    def _describe(self) -> list[list[Any]]:
        """Path and shape of each variable."""
        return [[variable.path, list(variable.shape)] for variable in self._variables]


def remove_checkpoints(folder: str | None) -> None:
    """Removes the checkpoints of a training that is done; nothing when there are none, or no folder for them."""
    if not folder:
        return
    for path in tf.io.gfile.glob(f"{folder}/step-*"):
        _remove(path.rstrip("/"))
    if tf.io.gfile.exists(folder):
        tf.io.gfile.rmtree(folder)


def replace_files(source: str | None, target: str) -> None:
    """Makes `target` a copy of the flat folder `source`; without one it becomes empty."""
    if tf.io.gfile.exists(target):
        tf.io.gfile.rmtree(target)
    tf.io.gfile.makedirs(target)
    for path in tf.io.gfile.glob(f"{source}/*") if source else ():
        tf.io.gfile.copy(path, f"{target}/{os.path.basename(path)}")


def _check_same(path: str, stored: Sequence[Any], own: Sequence[Any]) -> None:
    for (stored_name, stored_shape), (name, shape) in zip(stored, own, strict=False):
        if stored_shape != shape:
            raise CheckpointMismatchError(
                f"{path}: checkpoint of another architecture: {stored_name} is {stored_shape} there, {name} is {shape} here"
            )
    if len(stored) != len(own):
        raise CheckpointMismatchError(
            f"{path}: checkpoint of another architecture: {len(stored)} variables there, {len(own)} here"
        )


def _remove(path: str) -> None:
    """Removes a checkpoint, beginning with what makes it one."""
    if tf.io.gfile.exists(f"{path}/{PROGRESS_FILE}"):
        tf.io.gfile.remove(f"{path}/{PROGRESS_FILE}")
    if tf.io.gfile.exists(path):
        tf.io.gfile.rmtree(path)
