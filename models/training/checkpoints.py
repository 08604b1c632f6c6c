"""Checkpoints of a training: everything from which a killed training can continue.

Input: the variables of model and optimizer, the steps done, the last losses, the
evaluations with the weights of the best step, the TensorBoard events so far. Output: a
folder `step-<n>/` on a disk or an object store, and the same back. The position in the
data follows from the steps done (`input_pipeline.train_dataset`), so it is not saved.

The newest two are kept. If the newest is damaged, it is set aside as
`damaged-step-<n>/`, and the training continues from the one before.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contracts import locations, object_store, sealing
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import Location, locate, staged
from models.training.evaluations import Evaluation, Weights

PROGRESS_FILE = "progress.json"
"""Written last and removed first. A folder without it is not a checkpoint."""

_VARIABLES = "variables"
_EVENTS = "events"
_BEST = "best"
"""The weights of the best step, among the variables."""
_ASIDE = "damaged-"
"""Begins the name of a checkpoint that was set aside; no pattern here matches it."""
# What TensorFlow says of a file with other bytes than it wrote, or of a missing one.
# Source: tensorflow/core/util/tensor_bundle/tensor_bundle.cc, core/lib/io/table.cc.
_SAYS_DAMAGED = re.compile(
    "checksum|corrupt|sstable|less bytes|too short|no such file|matching files|not found", re.I
)

_LOGGER = logging.getLogger("terrapair.training")
"""The run's console shows what is logged here."""


class CheckpointMismatchError(TerrapairError, ValueError):
    """The checkpoint in the folder is of another architecture or optimizer."""

    exit_code = ExitCode.USAGE


class _DamagedError(Exception):
    """A checkpoint that cannot be read whole; the message says what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Attributes:
        step: number of updates done.
        last_losses: losses of the newest steps, oldest first.
        events_dir: folder of the TensorBoard events of all steps done; None = none.
        evaluations: all so far, oldest first.
        best_weights: of the best step; None = none are kept.
    """

    step: int = 0
    last_losses: tuple[float, ...] = ()
    events_dir: str | None = None
    evaluations: tuple[Evaluation, ...] = ()
    best_weights: Weights | None = None


class Checkpoints:
    """The newest two checkpoints of one training."""

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

    def restore(self, is_writer: bool = True) -> Progress | None:
        """Load the newest whole checkpoint into the variables; return its progress.

        Newer ones that are damaged are set aside, and one line is logged.

        Args:
            is_writer: whether this process may move files. With several workers only
                the chief may; all of them find the same checkpoint.

        Returns:
            None when there is no whole checkpoint; the variables stay as they are.

        Raises:
            CheckpointMismatchError: the checkpoint has other variables than these.
        """
        damaged: list[tuple[Location, str]] = []
        progress = None
        for path in self._complete():
            try:
                progress = self._read(path)
                break
            except _DamagedError as error:
                damaged.append((path, str(error)))
        if damaged and is_writer:
            _set_aside(damaged, progress)
        return progress

    def save(self, progress: Progress) -> None:
        """Write a checkpoint with a copy of the events; keep the one before it.

        The events must be flushed. If writing fails, as on a full disk, nothing of the
        new checkpoint is left.
        """
        path = self._folder / f"step-{progress.step:09d}"
        # Remove before writing: the disk never has to hold three. A killed attempt may
        # have left an incomplete one.
        kept = [other.name for other in self._complete() if other.name != path.name][:1]
        for other in self._folder.glob("step-*"):
            if other.name not in kept:
                _remove(other)
        is_whole = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._as_checkpoint(progress.best_weights).write(f"{path}/{_VARIABLES}")
            replace_files(progress.events_dir, f"{path}/{_EVENTS}")
            record = {
                "step": progress.step,
                "last_losses": progress.last_losses,
                # JSON has no NaN.
                "evaluations": [
                    [one.step, None if math.isnan(one.score) else one.score]
                    for one in progress.evaluations
                ],
                "num_best_weights": len(progress.best_weights or ()),
                "variables": self._describe(),
            }
            # Staged: a process that is killed here must not leave half a JSON under
            # the name that makes a checkpoint.
            with staged(path / PROGRESS_FILE) as file:
                file.write_text(json.dumps(sealing.seal(record)))
            is_whole = True
        finally:
            if not is_whole:
                # Half of a checkpoint only takes space. The error that is under way
                # tells more than one of this removal.
                with contextlib.suppress(OSError, tf.errors.OpError):
                    _remove(path)

    def _complete(self) -> list[Location]:
        """Return the folders of all checkpoints that were finished, newest first."""
        found = self._folder.glob(f"step-*/{PROGRESS_FILE}")
        return sorted((record.parent for record in found), reverse=True)

    def _read(self, path: Location) -> Progress:
        """Load one checkpoint into the variables.

        Nothing is assigned before all of it has been read once: variables that come
        from half a checkpoint would be neither the old nor the new ones.

        Raises:
            CheckpointMismatchError: it has other variables than these.
            _DamagedError: a part is missing, or is not as it was written.
        """
        record = _read_record(path / PROGRESS_FILE)
        _check_same(str(path), record["variables"], self._describe())
        try:
            with locations.without_pattern(path) as readable:
                reader = tf.train.load_checkpoint(f"{readable}/{_VARIABLES}")
                for name in reader.get_variable_to_shape_map():
                    # TensorFlow compares the checksum of each tensor that is read.
                    reader.get_tensor(name)
                best_weights = tuple(
                    reader.get_tensor(f"{_BEST}/{number}/.ATTRIBUTES/VARIABLE_VALUE")
                    for number in range(record.get("num_best_weights", 0))
                )
        except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
            # A store that does not answer has lost nothing: do not set it aside.
            if object_store.is_remote(path) and not _SAYS_DAMAGED.search(str(error)):
                raise
            raise _DamagedError(" ".join(str(error).split())) from error
        with locations.without_pattern(path) as readable:
            found = self._as_checkpoint().read(f"{readable}/{_VARIABLES}")
            found.assert_existing_objects_matched()
            # The best weights are no variables here: TensorFlow would warn of each.
            found.expect_partial()
        return Progress(
            step=record["step"],
            last_losses=tuple(record["last_losses"]),
            events_dir=f"{path}/{_EVENTS}",
            evaluations=tuple(
                Evaluation(step=step, score=math.nan if score is None else score)
                for step, score in record.get("evaluations", ())
            ),
            best_weights=best_weights or None,
        )

    def _as_checkpoint(self, best_weights: Weights | None = None) -> tf.train.Checkpoint:
        # Lists, so that variables are matched by position: Keras numbers the names of
        # layers differently in each process.
        parts = {"variables": [variable.value for variable in self._variables]}
        if best_weights is not None:
            with tf.device("CPU:0"):
                parts[_BEST] = [tf.Variable(value) for value in best_weights]
        return tf.train.Checkpoint(**parts)

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


def _read_record(path: Location) -> dict[str, Any]:
    """Return the content of a checkpoint's `PROGRESS_FILE`.

    Raises:
        _DamagedError: it is not the JSON that `save` wrote.
    """
    try:
        record = json.loads(path.read_text())
    # Not found: with several workers, the chief may just have set it aside.
    except (ValueError, RecursionError, IsADirectoryError, FileNotFoundError) as error:
        raise _DamagedError(f"{PROGRESS_FILE} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise _DamagedError(f"{PROGRESS_FILE} holds no JSON object")
    if broken := sealing.why_broken(record):
        raise _DamagedError(f"{PROGRESS_FILE}: {broken}")
    return record


def _set_aside(damaged: Sequence[tuple[Location, str]], progress: Progress | None) -> None:
    """Rename damaged checkpoints, and log in one line what the training does now."""
    texts = []
    for path, why in damaged:
        aside = path.with_name(f"{_ASIDE}{path.name}")
        locations.move_tree(path, aside)
        texts.append(f"checkpoint {path} is damaged ({why}) and was set aside as {aside.name}")
    _LOGGER.warning(
        "%s; the training %s",
        "; ".join(texts),
        "starts from the beginning: no older checkpoint is left"
        if progress is None
        else f"goes on from step {progress.step}",
    )


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
    with contextlib.suppress(IsADirectoryError, PermissionError):
        (path / PROGRESS_FILE).unlink(missing_ok=True)
    locations.remove_tree(path)
