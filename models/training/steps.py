"""One update of the weights, under any number of replicas.

Input: the loss of a replica's batch. Output: a function of a distributed batch. Made by
`training.py`; the update by parts of the batch is `gradient_cache.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

Batch = dict[str, tf.Tensor]
Scalars = dict[str, tf.Tensor]
LossFunction = Callable[[Batch], "tf.Tensor | Scalars"]
"""A replica's batch -> its loss, or `loss` among other scalars to be logged; their sums over replicas are the figures."""

PATCH_ID = "patch_id"
"""Feature of a batch, string [B], by which the loop names patches in errors; losses do not get it."""

VALID_FRACTION = "valid_pair_fraction"
"""Scalar by which a loss may tell the share of its examples that count, 0-1; where it is 0 nothing can be learned."""

StepFunction = Callable[[Any], Scalars]
"""Updates the weights with a distributed batch; returns `loss` and the other scalars, summed over replicas."""


@dataclass(frozen=True, kw_only=True)
class TwoStageLoss:
    """A LossFunction in two stages, of which the first, and costly, one can run on parts of the batch.

    Attributes:
        encode: batch -> outputs by name, one row per row of the batch.
        loss: outputs of a replica's whole batch -> `loss` and other scalars; may talk
            to other replicas.
        num_micro_batches: parts of a replica's batch; 1 = no cached gradients.
    """

    encode: Callable[[Batch], Batch]
    loss: Callable[[Batch], Scalars]
    num_micro_batches: int = 1

    def __call__(self, batch: Batch) -> Scalars:
        """Both stages at once."""
        return self.loss(self.encode(batch))


def make_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    compute_loss: LossFunction,
    optimizer: keras.optimizers.Optimizer,
) -> StepFunction:
    """The update with the gradient of `compute_loss`; `optimizer` must be built."""

    def replica_step(batch: Batch) -> Scalars:
        variables = model.trainable_variables
        # Nothing else: gradients of a frozen encoder would be built, to be thrown away.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            result = compute_loss(batch)
            scalars = result if isinstance(result, Mapping) else {"loss": result}
            # As it is, unless half precision needs larger gradients; the optimizer
            # divides them again.
            scaled_loss = optimizer.scale_loss(scalars["loss"])
        # Keras sums the gradients over replicas here; the loss is already divided by
        # their number.
        optimizer.apply(tape.gradient(scaled_loss, variables), variables)
        return dict(scalars)

    # XLA is several times slower than oneDNN for these nets on CPU, so it is off, not
    # left to "auto".
    @tf.function(jit_compile=False, autograph=False)
    def step(batch: Any) -> Scalars:
        return sum_scalars(strategy, strategy.run(replica_step, args=(batch,)))

    return step


def sum_scalars(strategy: tf.distribute.Strategy, scalars: Any) -> Scalars:
    """Sums each of the replicas' scalars over the replicas."""
    return {
        name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
        for name, value in scalars.items()
    }
