"""The training loop: one distributed step after the other, under any number of replicas.

Input: a step's loss as a function of a batch, the variables, a dataset. Output: the final loss, TensorBoard events, progress
calls. Called by `pretrain.py` and `segment.py`, which decide what is trained.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from models.config import OptimizerConfig
from models.gradient_cache import CachedStep
from models.steps import LossFunction, StepFunction, TwoStageLoss, make_step

ProgressCallback = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, all steps, {"loss": ..., and what else the loss reports}) after each step."""

CheckCallback = Callable[[int, float], None]
"""Called with (steps done, mean loss of the last steps); what it raises ends the training."""

NUM_FINAL_STEPS = 10
"""The reported train loss is the mean over this many last steps: one step's loss says little."""


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; weights from then on are worthless."""


@functools.cache
def get_strategy() -> tf.distribute.Strategy:
    """MirroredStrategy over all visible GPUs, else over all logical CPUs; the default strategy for a single CPU.

    One per process: a second MirroredStrategy numbers its collectives from the start again, and trainers that run one after
    the other in one process would meet each other's ("Collective ops is aborted").
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1 and devices[0].device_type == "CPU":
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def make_optimizer(config: OptimizerConfig, num_steps: int) -> keras.optimizers.Optimizer:
    """AdamW on a cosine schedule that ends at 0, after a linear warm-up.

    Biases, normalization scales and temperatures do not decay. Source: Loshchilov and Hutter 2017, arXiv 1711.05101; Goyal
    et al. 2017, arXiv 1706.02677, section 5.3 (no decay of normalization parameters).
    """
    num_warmup_steps = int(config.warmup_fraction * num_steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        # The first step already moves: a rate of exactly 0 would waste it.
        initial_learning_rate=config.learning_rate / (num_warmup_steps + 1),
        decay_steps=max(1, num_steps - num_warmup_steps),
        warmup_target=config.learning_rate,
        warmup_steps=num_warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "log_temperature"])
    return optimizer


def train(
    *,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    compute_loss: LossFunction,
    optimizer: keras.optimizers.Optimizer,
    dataset: tf.data.Dataset,
    num_steps: int,
    log_dir: str,
    on_step: ProgressCallback | None = None,
    check_every: int = 0,
    check: CheckCallback | None = None,
) -> float:
    """Updates the weights of `model` `num_steps` times.

    Args:
        strategy: under whose scope model and optimizer were made.
        model: what is trained.
        compute_loss: loss of one replica's batch as a `keras.losses.Loss` returns it: its sum over replicas is the loss; or
            `loss` among other such scalars, which are logged and told, too.
        optimizer: of the weights.
        dataset: endless batches of the global batch size.
        num_steps: number of updates.
        log_dir: TensorBoard events (scalars of the loss, learning rate) go to `log_dir`/train.
        on_step: told of every step.
        check_every: steps between two calls of `check`; 0 = none.
        check: looks at the model during training.

    Returns:
        The mean loss over the last steps.

    Raises:
        NonFiniteLossError: at the first loss that is NaN or infinite.
    """
    step_function = _make_step_function(strategy, model, compute_loss, optimizer)
    # An endless dataset and a fixed number of steps: the schedule, not the data's size, decides how long training is.
    batches = iter(strategy.experimental_distribute_dataset(dataset))
    writer = tf.summary.create_file_writer(f"{log_dir}/train")
    last_losses: list[float] = []
    for step in range(1, num_steps + 1):
        learning_rate = float(tf.convert_to_tensor(optimizer.learning_rate))
        scalars = {name: float(value) for name, value in step_function(next(batches)).items()}
        loss = scalars["loss"]
        # Before anything is logged or saved: a NaN never heals, every further step is wasted.
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"loss must be finite, got {loss} at step {step} of {num_steps} (learning rate {learning_rate:.3g})"
            )
        with writer.as_default(step=step):
            for name, value in {**scalars, "learning_rate": learning_rate}.items():
                tf.summary.scalar(name, value)
        last_losses = [*last_losses[1 - NUM_FINAL_STEPS :], loss]
        if on_step is not None:
            on_step(step, num_steps, scalars)
        if check is not None and check_every and step % check_every == 0:
            check(step, sum(last_losses) / len(last_losses))
    writer.close()
    return sum(last_losses) / len(last_losses)


def write_metrics(log_dir: str, step: int, metrics: dict[str, float]) -> None:
    """Writes the final metrics as TensorBoard scalars to `log_dir`/eval; NaN (a class that never occurs) is left out."""
    writer = tf.summary.create_file_writer(f"{log_dir}/eval")
    with writer.as_default(step=step):
        for name, value in metrics.items():
            if math.isfinite(value):
                tf.summary.scalar(name, value)
    writer.close()


def check_divisible(global_batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Refuses a global batch that cannot be split evenly.

    Raises:
        ValueError: replicas would get batches of unequal size, and the gathered negatives would not fit together.
    """
    num_replicas = strategy.num_replicas_in_sync
    if global_batch_size % num_replicas:
        raise ValueError(
            f"global_batch_size must be a multiple of the {num_replicas} replicas, got {global_batch_size}"
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
