"""One update of the weights, on any number of replicas.

Input: the loss of a replica's batch. Output: a function of a distributed batch.
`gradient_cache.py` has the update by parts of the batch.
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
"""A replica's batch -> its part of the loss, or a dict of `loss` and other scalars.

The sum of each scalar over the replicas is the logged figure.
"""

PATCH_ID = "patch_id"
"""Feature of a batch, string [B]: errors name patches by it. Losses do not get it."""

VALID_FRACTION = "valid_pair_fraction"
"""Optional scalar of a loss: the share of its examples that count, 0-1.

At 0 the batch teaches nothing, and the training ends with an error.
"""

StepFunction = Callable[[Any], Scalars]
"""Distributed batch -> `loss` and the other scalars, summed over replicas.

The call updates the weights.
"""


@dataclass(frozen=True, kw_only=True)
class TwoStageLoss:
    """A LossFunction in two stages; the first, costly one can run on parts of a batch.

    Attributes:
        encode: batch -> outputs by name, one row per row of the batch.
        loss: outputs of a replica's whole batch -> `loss` and other scalars. It may
            communicate with other replicas.
        num_micro_batches: parts of a replica's batch; 1 = no cached gradients.
    """

    encode: Callable[[Batch], Batch]
    loss: Callable[[Batch], Scalars]
    num_micro_batches: int = 1

    def __call__(self, batch: Batch) -> Scalars:
        """Run both stages on the whole batch."""
        return self.loss(self.encode(batch))


def make_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    compute_loss: LossFunction,
    optimizer: keras.optimizers.Optimizer,
) -> StepFunction:
    """Return the update by the gradient of `compute_loss`; build `optimizer` before."""

    def replica_step(batch: Batch) -> Scalars:
        variables = model.trainable_variables
        # Watch nothing else: gradients of a frozen encoder would be computed in vain.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([variable.value for variable in variables])
            result = compute_loss(batch)
            scalars = result if isinstance(result, Mapping) else {"loss": result}
            # Changes the loss only for float16, which needs larger gradients. The
            # optimizer divides them again.
            scaled_loss = optimizer.scale_loss(scalars["loss"])
        # Keras sums the gradients over replicas here; the loss is already divided by
        # their number.
        optimizer.apply(tape.gradient(scaled_loss, variables), variables)
        return dict(scalars)

    # XLA is off and not left to "auto": for these nets it is several times slower on
    # CPU than oneDNN.
    @tf.function(jit_compile=False, autograph=False)
    def step(batch: Any) -> Scalars:
        return sum_scalars(strategy, strategy.run(replica_step, args=(batch,)))

    return step


def sum_scalars(strategy: tf.distribute.Strategy, scalars: Any) -> Scalars:
    """Return the sum of each scalar over the replicas."""
    return {
        name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
        for name, value in scalars.items()
    }
