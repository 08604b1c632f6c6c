"""AdamW that updates a weight with one kernel.

Input: gradients of the global batch. Output: updated weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from models.optimization.pacing import Pace, Paces


class _Step(NamedTuple):
    """What the variables of one pace have in common in one step: scalars, float32.

    Attributes:
        kept: share of a weight that its decay leaves.
        lr, beta1_power, beta2_power, beta1, beta2, epsilon: as the kernel names them.
    """

    kept: Any
    lr: Any
    beta1_power: Any
    beta2_power: Any
    beta1: Any
    beta2: Any
    epsilon: Any


@keras.saving.register_keras_serializable(package="terrapair")
class FusedAdamW(keras.optimizers.Adam):
    """`keras.optimizers.AdamW` with equal results and a quarter of the memory traffic.

    Keras composes the update from about fifteen elementwise operations, each of which
    reads and writes arrays of the weight's size. For ResNet-18 on CPU that took as long
    as the forward pass; see docs/performance.md. Here one pass over memory changes the
    moments and the weight, after one pass for the decay.
    Source: Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2.

    Attributes:
        decay: decoupled weight decay; it is multiplied with the learning rate. Keras'
            `exclude_from_weight_decay` applies.
        paces: of the variables, see `Paces`. The bias correction counts from a
            variable's own first step.
    """

    def __init__(
        self,
        learning_rate: Any,
        *,
        decay: float = 0.0,
        paces: Iterable[Sequence[float]] = (),
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        # Keras' own `weight_decay` would take three passes over memory.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.decay, self.paces = decay, Paces(paces)

    def build(self, variables: Any) -> None:
        """Make two moments per variable."""
        self.paces.check(variables)
        super().build(variables)

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        """Update all variables; `update_step` gets a `_Step` for each pace as its rate.

        Computed for each variable, these scalars were almost half of the operations of
        a training step.
        """
        steps = tuple(self._make_step(pace, learning_rate) for pace in self.paces.distinct)
        super()._backend_update_step(grads, trainable_variables, steps)

    def _make_step(self, pace: Pace, learning_rate: Any) -> _Step:
        rate, number = pace.at(tf.cast(learning_rate, tf.float32), self.iterations)
        step = tf.cast(number, tf.float32)
        betas_and_epsilon = map(tf.constant, (self.beta_1, self.beta_2, self.epsilon))
        return _Step(
            1.0 - self.decay * rate, rate, self.beta_1**step, self.beta_2**step, *betas_and_epsilon
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable; each replica updates its own copy."""
        index = self._get_variable_index(variable)
        pace = self.paces.of(index)
        at: _Step = learning_rate[self.paces.distinct.index(pace)]
        if variable.dtype != tf.float32:
            at = _Step(*(tf.cast(value, variable.dtype) for value in at))
        if self.decay and self._use_weight_decay(variable):
            variable.assign(variable * at.kept)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=at.beta1_power,
            beta2_power=at.beta2_power,
            lr=at.lr,
            beta1=at.beta1,
            beta2=at.beta2,
            epsilon=at.epsilon,
            grad=pace.begun(gradient, self.iterations),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = {
            key: value for key, value in super().get_config().items() if key != "weight_decay"
        }
        return {**config, "decay": self.decay, "paces": self.paces.as_lists()}
