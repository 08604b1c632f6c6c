"""What is known of each step, read from the device one step late: losses, TensorBoard curves, and why a run ends at a batch.

Input: the scalars of each step and the ids of its patches. Output: events, progress
calls, the mean of the last losses; an error and the file of patch ids where the loss is
no number or nothing counts. Used by `training.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import tensorflow as tf

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from models.training.checkpoints import Progress
from models.training.steps import PATCH_ID, VALID_FRACTION, Batch

ProgressCallback = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, all steps, {"loss": ..., and what else the loss reports}) after each step, in order."""

NUM_LAST_STEPS = 10
"""The reported loss is the mean over this many last steps: one step's loss says little."""

NUM_NAMED_IDS = 5
"""Patch ids that an error names; the others are in the file."""

_ID_BYTES = 64
_LEARNING_RATE = "learning_rate"


class NonFiniteLossError(TerrapairError, RuntimeError):
    """The loss became NaN or infinite; weights from then on are worthless."""


class NoValidPairError(TerrapairError, RuntimeError):
    """No pair of a batch has a valid pixel in every sensor that is looked at."""

    exit_code = ExitCode.BAD_DATA


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A step that was sent to the device; its values may not be there yet.

    Attributes:
        step: counts from 1.
        scalars: tensors of the step.
        learning_rate: tensor.
        patch_ids: what `ids_as_bytes` made, of each replica of this process; empty when
            the batch has none.
    """

    step: int
    scalars: Mapping[str, Any]
    learning_rate: Any
    patch_ids: Sequence[Any] = ()


class StepLog:
    """Reads the steps that were sent, checks them and tells of them."""

    def __init__(
        self,
        log_dir: str,
        num_steps: int,
        *,
        on_step: ProgressCallback | None = None,
        start: Progress = Progress(),  # noqa: B008 - immutable
        is_writer: bool = True,
        stop_dir: str | None = None,
    ) -> None:
        """Opens the events.

        Args:
            log_dir: TensorBoard events (scalars of the loss, learning rate) go to
                `log_dir`/train.
            num_steps: of the whole training.
            on_step: told of every step.
            start: where an earlier attempt ended.
            is_writer: whether this process writes the events.
            stop_dir: where the patch ids of a batch that ends the run are written; None
                = `log_dir`.
        """
        self._log_dir, self._num_steps, self._on_step = log_dir, num_steps, on_step
        self._stop_dir = stop_dir or log_dir
        self._writer = (
            tf.summary.create_file_writer(events_dir(log_dir))
            if is_writer
            else tf.summary.create_noop_writer()
        )
        self._unread: Sent | None = None
        self._step, self._last_losses = start.step, start.last_losses

    @property
    def mean_loss(self) -> float:
        """Mean over the last steps that were read; NaN before the first."""
        return sum(self._last_losses) / len(self._last_losses) if self._last_losses else math.nan

    def progress(self) -> Progress:
        """What a checkpoint keeps of the log; all steps must be settled."""
        return Progress(
            step=self._step, last_losses=self._last_losses, events_dir=events_dir(self._log_dir)
        )

    def add(self, sent: Sent) -> None:
        """Takes a step and reads the one before: the device is at work while the host looks at what is done."""
        before, self._unread = self._unread, sent
        if before is not None:
            self._read(before)

    def settle(self) -> None:
        """Reads the step that is left and writes all events out."""
        before, self._unread = self._unread, None
        if before is not None:
            self._read(before)
        self._writer.flush()

    def close(self) -> None:
        """Closes the events; all steps must be settled."""
        self._writer.close()

    def refuse_weights(self, sent: Sent) -> NoReturn:
        """Ends the run at a step whose update left weights that are no numbers.

        Raises:
            NonFiniteLossError: always.
        """
        self._refuse(sent, NonFiniteLossError, "weights must be finite, got NaN or infinite ones")

    def _read(self, sent: Sent) -> None:
        """Tells of one step.

        Raises:
            NonFiniteLossError: its loss is NaN or infinite.
            NoValidPairError: none of its pairs counts.
        """
        scalars = {name: float(value) for name, value in sent.scalars.items()}
        # Before anything is logged or saved: a NaN never heals, every further step is
        # wasted.
        if not math.isfinite(scalars["loss"]):
            self._refuse(sent, NonFiniteLossError, f"loss must be finite, got {scalars['loss']}")
        if scalars.get(VALID_FRACTION, 1.0) == 0.0:
            rule = "a batch must hold a pair with valid pixels in every sensor, got none"
            self._refuse(sent, NoValidPairError, rule)
        with self._writer.as_default(step=sent.step):
            for name, value in {**scalars, _LEARNING_RATE: float(sent.learning_rate)}.items():
                tf.summary.scalar(name, value)
        self._step, self._last_losses = (
            sent.step,
            (*self._last_losses[1 - NUM_LAST_STEPS :], scalars["loss"]),
        )
        if self._on_step is not None:
            self._on_step(sent.step, self._num_steps, scalars)

    def _refuse(self, sent: Sent, kind: type[RuntimeError], rule: str) -> NoReturn:
        """Raises one line; the ids of all patches go into a file."""
        self._writer.flush()
        text = f"{rule} at step {sent.step} of {self._num_steps} (learning rate {float(sent.learning_rate):.3g})"
        ids = [bytes(row).rstrip(b"\0").decode() for rows in sent.patch_ids for row in rows.numpy()]
        if not ids:
            raise kind(text)
        path = f"{self._stop_dir}/stopped_at_step_{sent.step}.txt"
        tf.io.gfile.makedirs(self._stop_dir)
        with tf.io.gfile.GFile(path, "w") as file:
            file.write("\n".join(ids) + "\n")
        named = ", ".join(ids[:NUM_NAMED_IDS]) + (", ..." if len(ids) > NUM_NAMED_IDS else "")
        raise kind(f"{text}; its {len(ids)} patches are in {path}: {named}")


def events_dir(log_dir: str) -> str:
    """Where the curves of the training are."""
    return f"{log_dir}/train"


def ids_as_bytes(batch: Batch) -> Batch:
    """The batch with `patch_id` string [B] as uint8 [B, 64], zeros at the end: text cannot be sent to a GPU."""
    if PATCH_ID not in batch:
        return batch
    return batch | {PATCH_ID: tf.io.decode_raw(batch[PATCH_ID], tf.uint8, fixed_length=_ID_BYTES)}
