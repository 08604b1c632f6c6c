"""Convolutions with a fast gradient of the kernel for bfloat16 training on CPU.

Input and output are those of Keras' layer. The gradient is computed as products of
matrices. oneDNN's bfloat16 kernel for that gradient reads the accumulated gradient once
per image; with many channels and few pixels that is most of a training step
(docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

MIN_CHANNELS = 256
MAX_PIXELS = 64
"""Fewest input channels and most pixels with which a 3x3 convolution becomes faster.

Source: docs/performance.md.
"""

_ONES = [1, 1, 1, 1]


@keras.saving.register_keras_serializable(package="terrapair")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer with the same results, by other kernels where they are faster.

    Call: [B, H, W, C], or a list of [B, H, W, C_i] that stands for their concatenation.
    Each tensor of a list is convolved with its own part of the kernel, and the results
    are added. That equals one convolution, without the copies of a concatenation and
    without a gradient for inputs that need none, such as pixels.

    The class keeps Keras' name, because files of weights address layers by the names of
    their classes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Keras' own spec allows only one input.
        self.input_spec = None

    def build(self, input_shape: Any) -> None:
        """Make the kernel of all inputs."""
        super().build(_joined_shape(input_shape))
        self.input_spec = None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the output shape for one input shape or several."""
        return super().compute_output_shape(_joined_shape(input_shape))

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Return the convolution alone, without bias and activation."""
        kernel = tf.convert_to_tensor(kernel)
        if not isinstance(inputs, (list, tuple)):
            return self._convolve(inputs, kernel)
        kernels = tf.split(kernel, [part.shape[-1] for part in inputs], axis=2)
        return tf.add_n([self._convolve(*part) for part in zip(inputs, kernels, strict=True)])

    def _convolve(self, inputs: Any, kernel: tf.Tensor) -> Any:
        # On GPUs and in float32 (published models) the usual kernels are the fast ones.
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
    """Return [..., C] for one input shape, [..., sum of C_i] for several."""
    several = isinstance(shape[0], (list, tuple))
    return (*shape[0][:-1], sum(part[-1] for part in shape)) if several else shape


def pointwise(pixels: tf.Tensor, kernel: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
    """Return a 1x1 convolution, computed as a product of matrices.

    Args:
        pixels: [B, H, W, C].
        kernel: [1, 1, C, D].
        strides: of rows and columns.

    Returns:
        [B, H / strides, W / strides, D], rounded up.
    """
    if strides != (1, 1):
        # Pooling with a window of 1 picks every n-th pixel, four times as fast as a
        # strided slice.
        pixels = tf.nn.avg_pool2d(pixels, 1, strides, "VALID")
    product = tf.matmul(tf.reshape(pixels, [-1, kernel.shape[2]]), kernel[0, 0])
    result = tf.reshape(product, tf.concat([tf.shape(pixels)[:3], [kernel.shape[3]]], axis=0))
    return tf.ensure_shape(result, [*pixels.shape[:3], kernel.shape[3]])


@tf.custom_gradient
def convolve_3x3(
    pixels: tf.Tensor, kernel: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Return a 3x3 convolution with stride 1 and zero padding, and its gradient.

    Args:
        pixels: [B, H, W, C].
        kernel: [3, 3, C, D].

    Returns:
        [B, H, W, D].
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.shape(pixels)
        by_pixels = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=size, filter=kernel, out_backprop=upstream, strides=_ONES, padding="SAME"
        )
        # The size of the patches is known only at run time.
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
    """Return the gradient of the kernel of `convolve_3x3`.

    It takes one product of matrices for each of the kernel's nine positions.

    Args:
        pixels: [B, H, W, C].
        upstream: gradient by the outputs, [B, H, W, D].

    Returns:
        [3, 3, C, D].
    """
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
