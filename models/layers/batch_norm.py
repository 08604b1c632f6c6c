"""Batch normalization over the global batch.

Input: features of a convolution. Output: normalized features of the same shape and
dtype. One replica uses TensorFlow's fused kernel; several replicas share statistics.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from models.training import replicas

MOMENTUM = 0.9
"""Momentum of the moving statistics.

With Keras' 0.99 the initial values would still count after the few hundred steps of a
fine-tuning. Source: torchvision's ResNets (PyTorch's default 0.1 is 1 - 0.9).
"""

_FUSED_DTYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable(package="terrapair")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' synchronized layer, computed by TensorFlow's fused kernel where it can be.

    Call: [B, H, W, C] -> [B, H, W, C] of the same dtype; statistics and weights are
    float32. The results are those of Keras. Keras composes the normalization from a
    dozen elementwise operations, in half precision on float32 copies. That took up to
    half of a training step on CPU; see docs/performance.md.

    The class keeps Keras' name, because files of weights address layers by the names of
    their classes.
    """

    def __init__(
        self, *, momentum: float = MOMENTUM, synchronized: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(momentum=momentum, synchronized=synchronized, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """See the class."""
        uses_batch = bool(training and self.trainable)
        # The fused kernel sees only the batch of its own replica.
        if (
            mask is not None
            or not self._has_kernel(inputs)
            or (uses_batch and replicas.num_replicas() > 1)
        ):
            return super().call(inputs, training=training, mask=mask)
        no_statistics = tf.zeros([0], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.convert_to_tensor(self.gamma),
            offset=ops.convert_to_tensor(self.beta),
            mean=no_statistics if uses_batch else ops.convert_to_tensor(self.moving_mean),
            variance=no_statistics if uses_batch else ops.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=uses_batch,
        )
        if uses_batch:
            num_values = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
            # The kernel returns the unbiased estimate; Keras keeps the variance of the
            # batch itself.
            self._advance(mean, variance * (num_values - 1.0) / num_values)
        return outputs

    def _has_kernel(self, inputs: Any) -> bool:
        """Return whether the kernel supports these inputs and this layer's settings."""
        is_plain = self.center and self.scale and self.axis in (-1, 3)
        return (
            is_plain
            and len(inputs.shape) == 4
            and keras.backend.standardize_dtype(inputs.dtype) in _FUSED_DTYPES
        )

    def _advance(self, mean: Any, variance: Any) -> None:
        """Update the moving statistics by those of a batch, as Keras does."""
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
