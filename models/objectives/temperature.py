"""The temperature of a contrastive loss: fixed, or learned within bounds.

Input: its first value. Output: a scalar by which cosines are divided. Held by the
objectives.
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
    """A positive scalar; learned ones by their logarithm, so that no step can make them negative.

    Attributes:
        initial: first, or fixed, value.
        is_learned: whether it moves.
    """

    def __init__(self, initial: float, *, is_learned: bool, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.initial, self.is_learned = initial, is_learned
        if is_learned:
            self.log_temperature = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(math.log(initial)),
                # After each update, not in the forward pass: behind a clip the gradient
                # is 0, and it would stay outside.
                constraint=_LogClip(),
                # Replicas clip the same number; one of them says it.
                aggregation="only_first_replica",
                name="log_temperature",
            )

    def value(self) -> Any:
        """float32 scalar."""
        if not self.is_learned:
            return tf.constant(self.initial, tf.float32)
        return tf.exp(tf.convert_to_tensor(self.log_temperature))
