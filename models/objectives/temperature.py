"""The temperature of a contrastive loss: fixed, or learned within bounds.

Input: its initial value. Output: a scalar that divides cosines.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from models.config import LEARNED_TEMPERATURES


class _LogClip(keras.constraints.Constraint):
    def __call__(self, w: Any) -> Any:
        return keras.ops.clip(
            w, math.log(LEARNED_TEMPERATURES[0]), math.log(LEARNED_TEMPERATURES[1])
        )


class Temperature(keras.layers.Layer):
    """A positive scalar.

    A learned one is stored as its logarithm, so no step can make it negative.

    Attributes:
        initial: initial value, or the fixed one.
        is_learned: whether training changes it.
    """

    def __init__(self, initial: float, *, is_learned: bool, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.initial, self.is_learned = initial, is_learned
        if is_learned:
            self.log_temperature = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(initial)),
                # Clip after each update, not in the forward pass: the gradient of a
                # clipped value is 0, so it would stay outside.
                constraint=_LogClip(),
                # All replicas clip to the same number, so take the first replica's.
                aggregation="only_first_replica",
                name="log_temperature",
            )

    def value(self) -> Any:
        """Return the temperature, float32 scalar."""
        if not self.is_learned:
            return tf.constant(self.initial, tf.float32)
        return tf.exp(tf.convert_to_tensor(self.log_temperature))
