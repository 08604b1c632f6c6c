"""Group normalization in few passes over the features.

Input: features of a convolution. Output: normalized features of the same shape and
dtype. Encoders have it where `norm` is "group".
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="terrapair")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' layer with the same results, as one scale and shift per patch and channel.

    Call: [B, H, W, C] -> [B, H, W, C] of the same dtype; statistics and weights are
    float32. Keras computes moments of a five-dimensional view and a gradient of a dozen
    elementwise operations. Here the only passes over the pixels are sums and one
    multiplication with one addition, forward and backward; see docs/performance.md.
    Source: Wu and He 2018, arXiv 1803.08494, eq. 7.

    The class keeps Keras' name, because files of weights address layers by the names of
    their classes.
    """

    def call(self, inputs: Any) -> Any:
        """See the class."""
        if len(inputs.shape) != 4 or self.axis not in (-1, 3) or not (self.center and self.scale):
            return super().call(inputs)
        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        return _normalize(self.groups, self.epsilon)(
            inputs, tf.cast(gamma, tf.float32), tf.cast(beta, tf.float32)
        )


def _normalize(groups: int, epsilon: float) -> Any:
    """Return a differentiable function of features [B, H, W, C], gamma [C], beta [C].

    It returns the normalized features.
    """

    @tf.custom_gradient
    def normalize(inputs: Any, gamma: Any, beta: Any) -> Any:
        values = tf.cast(inputs, tf.float32)
        # Two passes: the mean of squares minus the square of the mean loses all digits
        # when the values are far from 0.
        mean = _by_group(
            tf.reduce_mean(values, (1, 2), keepdims=True), groups
        )  # [B, 1, 1, C], as all statistics here.
        centred = values - mean
        variance = _by_group(tf.reduce_mean(tf.square(centred), (1, 2), keepdims=True), groups)
        inverse = tf.math.rsqrt(variance + epsilon)
        outputs = centred * (gamma * inverse) + beta

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            d_outputs = tf.cast(upstream, tf.float32)
            size = tf.cast(tf.size(inputs) // tf.size(mean), tf.float32)  # H W
            sum_of_d = tf.reduce_sum(d_outputs, (1, 2), keepdims=True)
            sum_of_product = tf.reduce_sum(d_outputs * centred, (1, 2), keepdims=True) * inverse
            # Three paths: through the outputs, the mean and the variance.
            shift = _by_group(sum_of_d * gamma, groups) * inverse / size
            slope = _by_group(sum_of_product * gamma, groups) * tf.square(inverse) / size
            d_inputs = d_outputs * (gamma * inverse) - centred * slope - shift
            d_gamma, d_beta = (
                tf.reduce_sum(sums, (0, 1, 2)) for sums in (sum_of_product, sum_of_d)
            )
            return tf.cast(d_inputs, inputs.dtype), d_gamma, d_beta

        return tf.cast(outputs, inputs.dtype), gradient

    return normalize


def _by_group(per_channel: Any, groups: int) -> Any:
    """Return the mean over each group's channels, repeated for each of its channels.

    [B, 1, 1, C] -> [B, 1, 1, C].
    """
    channels = per_channel.shape[-1]
    grouped = tf.reshape(per_channel, (-1, groups, channels // groups))
    means = tf.reduce_mean(grouped, -1, keepdims=True)
    # Not tf.repeat, which adds a dozen operations to the graph each time.
    return tf.reshape(tf.broadcast_to(means, tf.shape(grouped)), (-1, 1, 1, channels))
