"""Upsampling that is faster than Keras' own, above all in half precision.

Input: features. Output: features of a larger height and width.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="terrapair")
class UpSampling2D(keras.layers.UpSampling2D):
    """Keras' upsampling with the same results, bit for bit, in half the time.

    Call: [B, H, W, C] -> [B, H size, W size, C] of the same dtype.

    Bilinear: TensorFlow's kernel returns float32. Keras clips that to the range of half
    precision before the cast, in three more passes at full size. A mean is always
    within the range of its inputs, so the clipping is left out. Nearest: Keras repeats
    pixels by two gathers. Here copies are concatenated, and their gradient is a sum of
    slices.
    """

    def __init__(self, size: int | tuple[int, int], **kwargs: Any) -> None:
        kwargs.setdefault("interpolation", "bilinear")
        super().__init__(size, **kwargs)

    def call(self, inputs: Any) -> Any:
        """See the class."""
        if self.interpolation not in ("bilinear", "nearest") or self.data_format != "channels_last":
            return super().call(inputs)
        rows, columns = self.size
        batch, height, width, _ = tf.unstack(tf.shape(inputs))
        if self.interpolation == "nearest":
            return _repeat(inputs, (batch, height, width), rows, columns)
        resized = tf.image.resize(inputs, [height * rows, width * columns], "bilinear")
        return tf.cast(resized, inputs.dtype)


def _repeat(inputs: Any, shape: tuple[Any, Any, Any], rows: int, columns: int) -> Any:
    """Return each pixel of `inputs` [B, H, W, C] repeated as `rows` x `columns` pixels.

    `shape` is (B, H, W) as scalar tensors.
    """
    (batch, height, width), channels = shape, inputs.shape[3]
    # In memory, repeating the channels repeats the columns, and repeating whole rows
    # repeats the rows.
    wide = tf.reshape(
        tf.concat([inputs] * columns, axis=3),
        [batch, height, 1, width * columns * channels],
    )
    tall = tf.concat([wide] * rows, axis=2)
    return tf.reshape(tall, [batch, height * rows, width * columns, channels])
