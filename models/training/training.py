"""The training loop: one distributed step after the other, on any number of replicas.

Input: a `Fit` (model, loss, optimizer, data) and folders. Output: the final loss,
TensorBoard events, progress calls and checkpoints. A training that was killed continues
from its newest checkpoint. A training that is evaluated on the way may stop early, and
may end with the weights of its best step. `scaffold.py` says what happens before and
after the loop.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from models.reading import passes
from models.training.checkpoints import Checkpoints, Progress, replace_files
from models.training.distribution import check_same_on_workers, is_chief
from models.training.evaluations import Evaluations
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
"""Number of steps done -> endless batches of the global batch size.

The first batch is that of the next step. Batches may carry `patch_id`.
"""

CheckCallback = Callable[[int, float], None]
"""Called with (steps done, mean loss of the last steps); may raise to end the run."""

MIN_TUNED_STEPS = 1_000
"""Steps of a training from which on tf.data tunes how the batches are read.

Tuned steps of SimCLR took 0.115 s, others 0.130 s. But in two of five trainings, the
end waits for the tuner up to a minute: see `models.reading.passes`.
"""

_LOGGER = logging.getLogger("terrapair.training")
"""The run's console shows what is logged here."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What the training loop needs of one kind of training.

    Attributes:
        model: what is trained; made in the strategy's scope.
        compute_loss: the loss of one replica's batch, as a `keras.losses.Loss` returns
            it: its sum over the replicas is the loss of the global batch. It may return
            a dict with `loss` and further scalars of that kind, which are logged too.
        optimizer: of the weights; made in the strategy's scope.
        dataset: gives the batches from any step on.
        num_steps: updates of the weights, those of earlier attempts included.
        checkpoint_every: steps between checkpoints; 0 = only after the last step.
        check: called every `check_every` steps, except after the last one. It may end
            the training by an exception; a step that it refuses gets no checkpoint.
        check_every: steps between the calls of `check`; 0 = none.
        evaluations: measure the model on the way and decide which step's weights the
            training ends with; None = those of the last step, without a measurement.
        is_control: whether the model is left as it began. `train` is not called then.
    """

    model: keras.Model
    compute_loss: LossFunction
    optimizer: keras.optimizers.Optimizer
    dataset: DatasetFunction
    num_steps: int
    checkpoint_every: int = 0
    check: CheckCallback | None = None
    check_every: int = 0
    evaluations: Evaluations | None = None
    is_control: bool = False

    @property
    def kept_step(self) -> int:
        """Step whose weights the model has after the training."""
        return self.num_steps if self.evaluations is None else self.evaluations.kept_step


def train(
    strategy: tf.distribute.Strategy,
    work: Fit,
    *,
    log_dir: str,
    checkpoint_dir: str | None = None,
    on_step: ProgressCallback | None = None,
) -> float:
    """Update the weights of `work.model`; return the mean loss over the last steps.

    The model has the weights of the last step then, or those that `work.evaluations`
    chose.

    Args:
        strategy: in whose scope model and optimizer were made.
        work: model, loss, optimizer, data and sizes.
        log_dir: TensorBoard events (scalars of the loss, learning rate) go to
            `log_dir`/train and replace what is there.
        checkpoint_dir: folder of this training alone, the same in every attempt. An
            attempt continues from the checkpoint in it. After the training it holds the
            checkpoint of the last step. None = keep no checkpoints.
        on_step: called after every step.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite, or weights did before they
            would be saved or returned.
        NoValidPairError: no example of a batch counts.
        CheckpointMismatchError: the checkpoint is of another architecture.
    """
    step_function = _make_step_function(strategy, work)
    model, optimizer, num_steps = work.model, work.optimizer, work.num_steps
    checkpoints = Checkpoints(checkpoint_dir, model, optimizer) if checkpoint_dir else None
    start = _restore(checkpoints, num_steps, strategy)
    evaluations = work.evaluations
    if evaluations is not None:
        evaluations.resume(start.evaluations, start.best_weights)
    is_writer = is_chief(strategy)
    if is_writer:
        # Copy the events of the checkpoint back. Otherwise steps that are repeated
        # would appear twice in the curve.
        replace_files(start.events_dir, events_dir(log_dir))
    log = StepLog(
        log_dir,
        num_steps,
        on_step=on_step,
        start=start,
        is_writer=is_writer,
        # TFX removes the log folder of an execution that fails, so the ids of the bad
        # patches go beside the checkpoints.
        stop_dir=checkpoint_dir or log_dir,
    )
    # The dataset is endless: the number of steps decides how long the training is.
    dataset = work.dataset(start.step)
    if num_steps - start.step < MIN_TUNED_STEPS:
        dataset = passes.untuned(dataset)
    batches = iter(_distribute(strategy, dataset))
    for step in range(start.step + 1, num_steps + 1):
        # Also for an attempt that goes on from a training that has stopped early.
        if evaluations is not None and evaluations.is_over:
            break
        log.add(sent := _send(strategy, step, step_function, optimizer, next(batches)))
        if work.check is not None and _is_due(step, work.check_every) and step < num_steps:
            log.settle()
            work.check(step, log.mean_loss)
        is_saved = step == num_steps or _is_due(step, work.checkpoint_every)
        is_evaluated = evaluations is not None and evaluations.is_due(step, num_steps)
        if is_saved or is_evaluated:
            log.settle()
            # A finite loss does not prove that the update after it was finite. A model
            # of NaN may have a score, since it gives all pixels one class.
            if not _is_finite(model):
                log.refuse_weights(sent)
        if evaluations is not None and is_evaluated:
            log.add_scores(step, evaluations.add(step, strategy), shown=evaluations.rule.score)
            is_saved = is_saved or evaluations.is_over
        if is_saved and checkpoints is not None and is_writer:
            checkpoints.save(_with_evaluations(log.progress(), evaluations))
    log.close()
    if evaluations is not None:
        evaluations.conclude(num_steps, strategy)
    return log.mean_loss


def write_metrics(log_dir: str, step: int, metrics: Mapping[str, float]) -> None:
    """Write the final metrics as TensorBoard scalars to `log_dir`/eval.

    NaN (a class that never occurs) is left out.
    """
    writer = tf.summary.create_file_writer(f"{log_dir}/eval")
    with writer.as_default(step=step):
        for name, value in metrics.items():
            if math.isfinite(value):
                tf.summary.scalar(name, value)
    writer.close()


def _restore(
    checkpoints: Checkpoints | None, num_steps: int, strategy: tf.distribute.Strategy
) -> Progress:
    """Load this training's newest whole checkpoint; return its progress.

    Without a checkpoint the variables stay as they are and the progress is step 0.

    Raises:
        RuntimeError: the workers found different checkpoints.
    """
    progress = checkpoints.restore(is_chief(strategy)) if checkpoints is not None else None
    progress = progress or Progress()
    check_same_on_workers(strategy, "step of the checkpoint", progress.step)
    if progress.step:
        _LOGGER.info("resumed after step %d of %d", progress.step, num_steps)
    return progress


def _with_evaluations(progress: Progress, found: Evaluations | None) -> Progress:
    """Return the progress with what an attempt needs to go on with the evaluations."""
    if found is None:
        return progress
    return replace(progress, evaluations=found.history, best_weights=found.best_weights)


def _distribute(strategy: tf.distribute.Strategy, dataset: tf.data.Dataset) -> Any:
    """Return the dataset as each replica's share of the global batches.

    A dataset whose sharding is off is this worker's share already.
    """
    policies = tf.data.experimental.AutoShardPolicy
    options = tf.data.Options()
    if dataset.options().experimental_distribute.auto_shard_policy != policies.OFF:
        # Share out the rows of each batch. If files were shared out, each worker would
        # make other batches.
        options.experimental_distribute.auto_shard_policy = policies.DATA
    return strategy.experimental_distribute_dataset(dataset.map(ids_as_bytes).with_options(options))


def _send(
    strategy: tf.distribute.Strategy,
    step: int,
    step_function: StepFunction,
    optimizer: keras.optimizers.Optimizer,
    batch: Batch,
) -> Sent:
    """Start one update on the devices and return at once, without its result."""
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


def _make_step_function(strategy: tf.distribute.Strategy, work: Fit) -> StepFunction:
    """Return the update of the weights, by cached gradients if the loss wants them."""
    # Variables cannot be created inside the compiled step's replicas.
    with strategy.scope():
        work.optimizer.build(work.model.trainable_variables)
    loss = work.compute_loss
    if isinstance(loss, TwoStageLoss) and loss.num_micro_batches > 1:
        return CachedStep(strategy, work.model, loss, work.optimizer)
    return make_step(strategy, work.model, loss, work.optimizer)
