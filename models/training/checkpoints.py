"""Checkpoints of a training: everything from which a killed training can continue.

Input: the variables of model and optimizer, the steps done, the last losses, the
TensorBoard events so far. Output: a folder `step-<n>/` on a disk or an object store,
and the same back. The position in the data follows from the steps done
(`input_pipeline.train_dataset`), so it is not saved.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contracts import locations
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import Location, locate, staged

PROGRESS_FILE = "progress.json"
"""Written last and removed first. A folder without it is not a checkpoint."""

_VARIABLES = "variables"
_EVENTS = "events"


class CheckpointMismatchError(TerrapairError, ValueError):
    """The checkpoint in the folder is of another architecture or optimizer."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Attributes:
        step: number of updates done.
        last_losses: losses of the newest steps, oldest first.
        events_dir: folder of the TensorBoard events of all steps done; None = none.
    """

    step: int = 0
    last_losses: tuple[float, ...] = ()
    events_dir: str | None = None


class Checkpoints:
    """The newest checkpoint of one training; complete ones replace older ones."""

    def __init__(
        self, folder: str, model: keras.Model, optimizer: keras.optimizers.Optimizer
    ) -> None:
        """Keep the folder and the variables; no file is opened yet.

        Args:
            folder: of this training only. It need not exist.
            model: its weights, statistics and seeds are saved.
            optimizer: its slots and step counter are saved. It must be built.
        """
        self._folder = locate(folder)
        self._variables = [*model.variables, *optimizer.variables]

    def restore(self) -> Progress | None:
        """Set all variables to those of the newest checkpoint; return its progress.

        Returns:
            None when there is no checkpoint; the variables stay as they are.

        Raises:
            CheckpointMismatchError: the checkpoint has other variables than these.
        """
        complete = sorted(self._folder.glob(f"step-*/{PROGRESS_FILE}"))
        if not complete:
            return None
        path = str(complete[-1].parent)
        record = json.loads(complete[-1].read_text())
        _check_same(path, record["variables"], self._describe())
        with locations.without_pattern(path) as readable:
            found = self._as_checkpoint().read(f"{readable}/{_VARIABLES}")
            found.assert_existing_objects_matched()
        losses = tuple(record["last_losses"])
        return Progress(step=record["step"], last_losses=losses, events_dir=f"{path}/{_EVENTS}")

    def save(self, progress: Progress) -> None:
        """Write a checkpoint with a copy of the events; then remove the older ones.

        The events must be flushed.
        """
        path = self._folder / f"step-{progress.step:09d}"
        # A killed attempt may have left an incomplete one.
        _remove(path)
        path.mkdir(parents=True, exist_ok=True)
        self._as_checkpoint().write(f"{path}/{_VARIABLES}")
        replace_files(progress.events_dir, f"{path}/{_EVENTS}")
        record = {
            "step": progress.step,
            "last_losses": progress.last_losses,
            "variables": self._describe(),
        }
        # Staged: a process that is killed here must not leave half a JSON under the
        # name that makes a checkpoint.
        with staged(path / PROGRESS_FILE) as file:
            file.write_text(json.dumps(record))
        for other in self._folder.glob("step-*"):
            if other.name != path.name:
                _remove(other)

    def _as_checkpoint(self) -> tf.train.Checkpoint:
        # A list, so that variables are matched by position: Keras numbers the names of
        # layers differently in each process.
        return tf.train.Checkpoint(variables=[variable.value for variable in self._variables])

    def _describe(self) -> list[list[Any]]:
        """Return path and shape of each variable."""
        return [[variable.path, list(variable.shape)] for variable in self._variables]


def remove_checkpoints(folder: str | None) -> None:
    """Remove the folder of a training's checkpoints; None or no such folder is fine."""
    if not folder:
        return
    for path in locate(folder).glob("step-*"):
        _remove(path)
    locations.remove_tree(folder)


def replace_files(source: str | None, target: str) -> None:
    """Make folder `target` a copy of the flat folder `source`; empty for None."""
    locations.remove_tree(target)
    locate(target).mkdir(parents=True, exist_ok=True)
    for path in locate(source).glob("*") if source else ():
        locations.copy_file(path, f"{target}/{path.name}")


def _check_same(path: str, stored: Sequence[Any], own: Sequence[Any]) -> None:
    """Compare stored paths and shapes of variables with those of this training.

    Raises:
        CheckpointMismatchError: a shape or the number of variables differs.
    """
    for (stored_name, stored_shape), (name, shape) in zip(stored, own, strict=False):
        if stored_shape != shape:
            raise CheckpointMismatchError(
                f"{path}: checkpoint of another architecture: {stored_name} is "
                f"{stored_shape} there, {name} is {shape} here"
            )
    if len(stored) != len(own):
        raise CheckpointMismatchError(
            f"{path}: checkpoint of another architecture: {len(stored)} variables there, "
            f"{len(own)} here"
        )


def _remove(path: Location) -> None:
    """Remove a checkpoint, `PROGRESS_FILE` first: half of one is never restored."""
    (path / PROGRESS_FILE).unlink(missing_ok=True)
    locations.remove_tree(path)
