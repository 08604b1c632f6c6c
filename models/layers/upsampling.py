"""Upsampling without the detour that Keras takes in half precision.

Input: features. Output: the same, larger. Put into every head that upsamples.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="terrapair")
class UpSampling2D(keras.layers.UpSampling2D):
    """Keras' upsampling in half the time: bilinear under mixed precision, bit for bit, and by repeated pixels.

    Call: [B, H, W, C] -> [B, H size, W size, C] of the same dtype. TensorFlow's
    bilinear kernel answers in float32, and Keras holds that within the range of the
    half precision, in three more passes at full size, before it casts: a mean of
    numbers is within their range as it is. Keras repeats pixels by two gathers; copied
    side by side, their gradient is a sum of slices.
    """

    def __init__(self, size: int | tuple[int, int], **kwargs: Any) -> None:
        kwargs.setdefault("interpolation", "bilinear")
        super().__init__(size, **kwargs)

    def call(self, inputs: Any) -> Any:
        """See the class."""
        if self.interpolation not in ("bilinear", "nearest") or self.data_format != "channels_last":
            return super().call(inputs)
        rows, columns = self.size
        shape = tf.shape(inputs)
        if self.interpolation == "nearest":
            return _repeat(inputs, shape, rows, columns)
        resized = tf.image.resize(inputs, [shape[1] * rows, shape[2] * columns], "bilinear")
        return tf.cast(resized, inputs.dtype)


def _repeat(inputs: Any, shape: tf.Tensor, rows: int, columns: int) -> Any:
    """Each pixel of `inputs` [B, H, W, C] of dynamic `shape` as `rows` x `columns` pixels."""
    channels = inputs.shape[3]
    # Channels repeated are columns repeated, in memory, and whole rows likewise.
    wide = tf.reshape(
        tf.concat([inputs] * columns, axis=3),
        [shape[0], shape[1], 1, shape[2] * columns * channels],
    )
    tall = tf.concat([wide] * rows, axis=2)
    return tf.reshape(tall, [shape[0], shape[1] * rows, shape[2] * columns, channels])
