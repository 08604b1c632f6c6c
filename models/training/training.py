"""The training loop: one distributed step after the other, under any number of replicas, going on where it was killed.

Input: a step's loss as a function of a batch, the variables, the batches from any step
on. Output: the final loss, TensorBoard events, progress calls, checkpoints on the way.
Called by `pretrain.py` and `segment.py`, which decide what is trained and what a
training without a checkpoint starts from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from models.training.checkpoints import Checkpoints, Progress, replace_files
from models.training.distribution import check_same_on_workers, is_chief
from models.training.gradient_cache import CachedStep
from models.training.step_log import ProgressCallback, Sent, StepLog, events_dir, ids_as_bytes
from models.training.steps import (
    PATCH_ID,
    Batch,
    LossFunction,
    StepFunction,
    TwoStageLoss,
    make_step,
)

DatasetFunction = Callable[[int], tf.data.Dataset]
"""Steps done -> endless batches of the global batch size, beginning with that of the next step; they may carry `patch_id`."""

CheckCallback = Callable[[int, float], None]
"""Called with (steps done, mean loss of the last steps); what it raises ends the training."""

_LOGGER = logging.getLogger("terrapair.training")
"""Whoever watches a run shows what is said here."""


def train(
    *,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    compute_loss: LossFunction,
    optimizer: keras.optimizers.Optimizer,
    dataset: DatasetFunction,
    num_steps: int,
    log_dir: str,
    on_step: ProgressCallback | None = None,
    checkpoint_dir: str | None = None,
    checkpoint_every: int = 0,
    check_every: int = 0,
    check: CheckCallback | None = None,
) -> float:
    """Updates the weights of `model` `num_steps` times, those of an earlier attempt included.

    Args:
        strategy: under whose scope model and optimizer were made.
        model: what is trained.
        compute_loss: loss of one replica's batch as a `keras.losses.Loss` returns it:
            its sum over replicas is the loss; or `loss` among other such scalars, which
            are logged and told, too.
        optimizer: of the weights.
        dataset: gives the batches from a step on.
        num_steps: number of updates.
        log_dir: TensorBoard events (scalars of the loss, learning rate) go to
            `log_dir`/train, in place of what is there.
        on_step: told of every step.
        checkpoint_dir: folder of this training alone, the same for each attempt, which
            goes on from the checkpoint in it. It stays when the training is done, with
            the last step. None = no checkpoints.
        checkpoint_every: steps between checkpoints; 0 = only after the last step.
        check_every: steps between calls of `check`; 0 = none. The end is the caller's
            to look at.
        check: may end the run by an exception; no checkpoint is made of a step that it
            refuses.

    Returns:
        The mean loss over the last steps.

    Raises:
        NonFiniteLossError: at the first loss that is NaN or infinite, or before such
            weights would be kept or returned.
        NoValidPairError: at the first batch of which nothing counts.
        CheckpointMismatchError: the checkpoint is of another architecture.
    """
    step_function = _make_step_function(strategy, model, compute_loss, optimizer)
    checkpoints = Checkpoints(checkpoint_dir, model, optimizer) if checkpoint_dir else None
    start = _restore(checkpoints, num_steps, strategy)
    log = _open_log(strategy, log_dir, checkpoint_dir, num_steps, start, on_step)
    # Endless: the number of steps, not the data's size, decides how long training is.
    batches = iter(_distribute(strategy, dataset(start.step)))
    for step in range(start.step + 1, num_steps + 1):
        log.add(sent := _send(strategy, step, step_function, optimizer, next(batches)))
        if check is not None and _is_due(step, check_every) and step < num_steps:
            log.settle()
            check(step, log.mean_loss)
        if step == num_steps or _is_due(step, checkpoint_every):
            log.settle()
            # A finite loss does not say that the update after it was.
            if not _is_finite(model):
                log.refuse_weights(sent)
            if checkpoints is not None and is_chief(strategy):
                checkpoints.save(log.progress())
    log.close()
    return log.mean_loss


def write_metrics(log_dir: str, step: int, metrics: dict[str, float]) -> None:
    """Writes the final metrics as TensorBoard scalars to `log_dir`/eval; NaN (a class that never occurs) is left out."""
    writer = tf.summary.create_file_writer(f"{log_dir}/eval")
    with writer.as_default(step=step):
        for name, value in metrics.items():
            if math.isfinite(value):
                tf.summary.scalar(name, value)
    writer.close()


def _restore(
    checkpoints: Checkpoints | None, num_steps: int, strategy: tf.distribute.Strategy
) -> Progress:
    """What this training's own checkpoint says, to which whatever the variables hold gives way; else the start.

    Raises:
        RuntimeError: the workers found different checkpoints.
    """
    progress = checkpoints.restore() if checkpoints is not None else None
    progress = progress or Progress()
    check_same_on_workers(strategy, "step of the checkpoint", progress.step)
    if progress.step:
        _LOGGER.info("resumed after step %d of %d", progress.step, num_steps)
    return progress


def _open_log(
    strategy: tf.distribute.Strategy,
    log_dir: str,
    checkpoint_dir: str | None,
    num_steps: int,
    start: Progress,
    on_step: ProgressCallback | None,
) -> StepLog:
    """The log of this attempt, whose curve goes on where that of the checkpoint ends."""
    is_writer = is_chief(strategy)
    if is_writer:
        # Without this, steps that are taken again would be in the curve twice.
        replace_files(start.events_dir, events_dir(log_dir))
    return StepLog(
        log_dir,
        num_steps,
        on_step=on_step,
        start=start,
        is_writer=is_writer,
        # TFX removes the log folder of an execution that fails.
        stop_dir=checkpoint_dir or log_dir,
    )


def _distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Any:
    """The replicas' shares of each global batch."""
    options = tf.data.Options()
    # Workers take their rows of the same batch; were files shared out instead, each
    # would make batches of its own.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(dataset.map(ids_as_bytes).with_options(options))


def _send(
    strategy: tf.distribute.Strategy,
    step: int,
    step_function: StepFunction,
    optimizer: keras.optimizers.Optimizer,
    batch: Batch,
) -> Sent:
    """Starts one update; nothing here waits for its result."""
    patch_ids = strategy.experimental_local_results(batch[PATCH_ID]) if PATCH_ID in batch else ()
    learning_rate = tf.convert_to_tensor(optimizer.learning_rate)
    scalars = step_function({name: values for name, values in batch.items() if name != PATCH_ID})
    return Sent(step=step, scalars=scalars, learning_rate=learning_rate, patch_ids=patch_ids)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _is_finite(model: keras.Model) -> bool:
    values = [variable.value for variable in model.variables]
    return all(
        bool(tf.reduce_all(tf.math.is_finite(value))) for value in values if value.dtype.is_floating
    )


def _make_step_function(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    compute_loss: LossFunction,
    optimizer: keras.optimizers.Optimizer,
) -> StepFunction:
    # Variables cannot be created inside the compiled step's replicas.
    with strategy.scope():
        optimizer.build(model.trainable_variables)
    if isinstance(compute_loss, TwoStageLoss) and compute_loss.num_micro_batches > 1:
        return CachedStep(strategy, model, compute_loss, optimizer)
    return make_step(strategy, model, compute_loss, optimizer)
