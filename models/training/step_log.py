"""The log of a training: TensorBoard events, progress calls and the stop on NaN.

Input: the scalars of each step and the ids of its patches. They are read from the
device one step late, so that the device need not wait. Output: events, progress calls,
the mean of the last losses. Where the loss is not finite, or nothing in a batch counts,
the log raises an error and writes the ids of the batch's patches to a file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import tensorflow as tf

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import locate
from models.training.checkpoints import Progress
from models.training.steps import PATCH_ID, VALID_FRACTION, Batch

ProgressCallback = Callable[[int, int, dict[str, float]], None]
"""Called after each step, in order, with (steps done, all steps, scalars by name)."""

NUM_LAST_STEPS = 10
"""The reported loss is the mean over this many last steps: one step's loss is noisy."""

NUM_NAMED_IDS = 5
"""Number of patch ids that an error names. All ids are in the file."""

_ID_BYTES = 64
_LEARNING_RATE = "learning_rate"

EVAL_PREFIX = "eval_"
"""Begins the names of the scores of an evaluation, among the scalars of the steps."""


class NonFiniteLossError(TerrapairError, RuntimeError):
    """The loss became NaN or infinite; the weights after that step are useless."""


class NoValidPairError(TerrapairError, RuntimeError):
    """No pair of a batch has a valid pixel in each sensor that the objective uses."""

    exit_code = ExitCode.BAD_DATA


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A step that was sent to the device; its values may not be computed yet.

    Attributes:
        step: number of the step, from 1.
        scalars: tensors of the step, by name.
        learning_rate: tensor.
        patch_ids: output of `ids_as_bytes` for each replica of this process; empty when
            the batch has no ids.
    """

    step: int
    scalars: Mapping[str, Any]
    learning_rate: Any
    patch_ids: Sequence[Any] = ()


class StepLog:
    """Reads the steps that were sent, checks their losses, logs and reports them."""

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
        """Open the event file.

        Args:
            log_dir: TensorBoard events (scalars of the loss, learning rate) go to
                `log_dir`/train.
            num_steps: steps of the whole training.
            on_step: called after every step.
            start: where an earlier attempt ended.
            is_writer: whether this process writes events.
            stop_dir: folder for the patch ids of a batch that ends the run; None =
                `log_dir`.
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
        self._shown: dict[str, float] = {}

    @property
    def mean_loss(self) -> float:
        """Mean loss over the last steps that were read; NaN before the first."""
        return sum(self._last_losses) / len(self._last_losses) if self._last_losses else math.nan

    def progress(self) -> Progress:
        """Return what a checkpoint saves of the log; all steps must be settled."""
        return Progress(
            step=self._step, last_losses=self._last_losses, events_dir=events_dir(self._log_dir)
        )

    def add(self, sent: Sent) -> None:
        """Take a step; read the one before it while the device computes the new one."""
        before, self._unread = self._unread, sent
        if before is not None:
            self._read(before)

    def add_scores(self, step: int, scores: Mapping[str, float], shown: str) -> None:
        """Log the scores of an evaluation after `step`; all steps must be settled.

        From then on, the progress calls have the score `shown`, too. NaN is left out.
        """
        known = {
            f"{EVAL_PREFIX}{name}": value for name, value in scores.items() if math.isfinite(value)
        }
        with self._writer.as_default(step=step):
            for name, value in known.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
        name = f"{EVAL_PREFIX}{shown}"
        self._shown = {name: known[name]} if name in known else {}

    def settle(self) -> None:
        """Read the step that is left and flush all events."""
        before, self._unread = self._unread, None
        if before is not None:
            self._read(before)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file; all steps must be settled."""
        self._writer.close()

    def refuse_weights(self, sent: Sent) -> NoReturn:
        """End the run at a step after which weights are not finite.

        Raises:
            NonFiniteLossError: always.
        """
        self._refuse(sent, NonFiniteLossError, "weights must be finite, got NaN or infinite ones")

    def _read(self, sent: Sent) -> None:
        """Check one step, then log and report it.

        Raises:
            NonFiniteLossError: its loss is NaN or infinite.
            NoValidPairError: none of its pairs counts.
        """
        scalars = {name: float(value) for name, value in sent.scalars.items()}
        # Before anything is logged or saved: weights do not recover from NaN, so every
        # further step would be wasted.
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
            self._on_step(sent.step, self._num_steps, {**scalars, **self._shown})

    def _refuse(self, sent: Sent, kind: type[RuntimeError], rule: str) -> NoReturn:
        """Raise an error of one line; write the ids of all patches to a file."""
        self._writer.flush()
        rate = f"{float(sent.learning_rate):.3g}"
        text = f"{rule} at step {sent.step} of {self._num_steps} (learning rate {rate})"
        ids = [bytes(row).rstrip(b"\0").decode() for rows in sent.patch_ids for row in rows.numpy()]
        if not ids:
            raise kind(text)
        folder = locate(self._stop_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"stopped_at_step_{sent.step}.txt"
        path.write_text("\n".join(ids) + "\n")
        named = ", ".join(ids[:NUM_NAMED_IDS]) + (", ..." if len(ids) > NUM_NAMED_IDS else "")
        raise kind(f"{text}; its {len(ids)} patches are in {path}: {named}")


def events_dir(log_dir: str) -> str:
    """Return the folder of the training's TensorBoard events."""
    return f"{log_dir}/train"


def ids_as_bytes(batch: Batch) -> Batch:
    """Return the batch with `patch_id` string [B] as uint8 [B, 64], padded with zeros.

    Strings cannot be sent to a GPU.
    """
    if PATCH_ID not in batch:
        return batch
    return batch | {PATCH_ID: tf.io.decode_raw(batch[PATCH_ID], tf.uint8, fixed_length=_ID_BYTES)}
