"""Convolutions of which bfloat16 training on CPU takes the gradient of the kernel as products of matrices.

Input and output as of Keras' layer. Put into every ResNet by `encoders.py`, and into
heads. oneDNN's bfloat16 kernel for that gradient goes over the accumulated kernel once
an image: with many channels and few pixels that is most of a step
(docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

MIN_CHANNELS = 256
MAX_PIXELS = 64
"""A 3x3 convolution gains with at least so many input channels and at most so many pixels. Source: docs/performance.md."""

_ONES = [1, 1, 1, 1]


@keras.saving.register_keras_serializable(package="terrapair")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer with its numbers; other kernels where they are faster.

    Call: [B, H, W, C], or several [B, H, W, C_i] that are meant to be concatenated:
    each meets its own part of the kernel, and the sums are those of the one
    convolution, without the copies and without a gradient for what needs none, such as
    pixels.

    The class keeps Keras' name: files of weights address layers by the names of their
    classes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Keras' own says that there is one input.
        self.input_spec = None

    def build(self, input_shape: Any) -> None:
        """Makes the kernel of all inputs."""
        super().build(_joined_shape(input_shape))
        self.input_spec = None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Of one shape or of several."""
        return super().compute_output_shape(_joined_shape(input_shape))

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution alone, without bias and activation."""
        kernel = tf.convert_to_tensor(kernel)
        if not isinstance(inputs, (list, tuple)):
            return self._convolve(inputs, kernel)
        kernels = tf.split(kernel, [part.shape[-1] for part in inputs], axis=2)
        return tf.add_n([self._convolve(*part) for part in zip(inputs, kernels, strict=True)])

    def _convolve(self, inputs: Any, kernel: tf.Tensor) -> Any:
        # Keras knows of GPUs what oneDNN does not; published models compute in float32.
        if kernel.dtype != tf.bfloat16 or tf.config.list_physical_devices("GPU"):
            return super().convolution_op(inputs, kernel)
        if self.kernel_size == (1, 1) and self.groups == 1:
            return pointwise(inputs, kernel, self.strides)
        is_plain = (
            self.strides == self.dilation_rate == (1, 1)
            and self.groups == 1
            and self.padding == "same"
        )
        if self.kernel_size == (3, 3) and is_plain and inputs.shape[-1] >= MIN_CHANNELS:
            return convolve_3x3(inputs, kernel)
        return super().convolution_op(inputs, kernel)


def _joined_shape(shape: Any) -> Any:
    """[..., C] of one input, [..., sum of C_i] of several."""
    several = isinstance(shape[0], (list, tuple))
    return (*shape[0][:-1], sum(part[-1] for part in shape)) if several else shape


def pointwise(pixels: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
    """A 1x1 convolution as a product of matrices.

    Args:
        pixels: [B, H, W, C].
        kernel: [1, 1, C, D].
        strides: of rows and columns.

    Returns:
        [B, H / strides, W / strides, D], rounded up.
    """
    if strides != (1, 1):
        # The mean of one pixel: that pixel, in a quarter of the time of a slice with
        # steps.
        pixels = tf.nn.avg_pool2d(pixels, 1, strides, "VALID")
    product = tf.matmul(tf.reshape(pixels, [-1, kernel.shape[2]]), kernel[0, 0])
    result = tf.reshape(product, tf.concat([tf.shape(pixels)[:3], [kernel.shape[3]]], axis=0))
    return tf.ensure_shape(result, [*pixels.shape[:3], kernel.shape[3]])


@tf.custom_gradient
def convolve_3x3(
    pixels: tf.Tensor, kernel: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """A 3x3 convolution [B, H, W, C], [3, 3, C, D] -> [B, H, W, D] with stride 1 and zeros around the image."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.shape(pixels)
        by_pixels = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=size, filter=kernel, out_backprop=upstream, strides=_ONES, padding="SAME"
        )
        # Patches may have any size, known only now.
        by_kernel = tf.cond(
            size[1] * size[2] <= MAX_PIXELS,
            lambda: gradient_by_taps(pixels, upstream),
            lambda: tf.raw_ops.Conv2DBackpropFilter(
                input=pixels,
                filter_sizes=kernel.shape,
                out_backprop=upstream,
                strides=_ONES,
                padding="SAME",
            ),
        )
        return by_pixels, by_kernel

    return tf.nn.conv2d(pixels, kernel, 1, "SAME"), gradient


def gradient_by_taps(pixels: tf.Tensor, upstream: tf.Tensor) -> tf.Tensor:
    """Gradient [3, 3, C, D] of the kernel of `convolve_3x3`: one product of matrices for each of its nine places."""
    size = tf.shape(upstream)
    num_in, num_out = pixels.shape[-1], upstream.shape[-1]
    padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]])
    flat = tf.reshape(upstream, [-1, num_out])
    taps = [
        tf.matmul(
            tf.reshape(padded[:, row : row + size[1], column : column + size[2], :], [-1, num_in]),
            flat,
            transpose_a=True,
        )
        for row in range(3)
        for column in range(3)
    ]
    return tf.reshape(tf.stack(taps), [3, 3, num_in, num_out])
