"""Convolutions with mirrored borders, and with a fast gradient in bfloat16 on CPU.

Input and output are those of Keras' layer. The gradient of the kernel is computed as
products of matrices. oneDNN's bfloat16 kernel for that gradient reads the accumulated
gradient once per image; with many channels and few pixels that is most of a training
step (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from models.config import Border

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

    With `border="mirror"` the padding "same" consists of the pixels along the border,
    mirrored, in place of zeros. Zeros tell the network where the patch ends, and it
    then treats the outermost pixels as a place of their own (docs/segmentation.md).

    The class keeps Keras' name, because files of weights address layers by the names of
    their classes.
    """

    def __init__(self, *args: Any, border: Border = "zeros", **kwargs: Any) -> None:
        """Check the border.

        Raises:
            ValueError: a mirrored border with a dilation or without padding.
        """
        super().__init__(*args, **kwargs)
        if border == "mirror" and (self.padding != "same" or self.dilation_rate != (1, 1)):
            raise ValueError(
                "border mirror needs padding same and dilation_rate 1, got "
                f"{self.padding} and {self.dilation_rate}"
            )
        self.border = border
        # Keras' own spec allows only one input.
        self.input_spec = None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "border": self.border}

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
        padding = self.padding
        if self.border == "mirror":
            inputs, padding = mirrored(inputs, self.kernel_size, self.strides), "valid"
        # On GPUs and in float32 (published models) the usual kernels are the fast ones.
        if kernel.dtype == tf.bfloat16 and not tf.config.list_physical_devices("GPU"):
            if self.kernel_size == (1, 1) and self.groups == 1:
                return pointwise(inputs, kernel, self.strides)
            is_plain = (
                self.strides == self.dilation_rate == (1, 1)
                and self.groups == 1
                and self.padding == "same"
            )
            if self.kernel_size == (3, 3) and is_plain and inputs.shape[-1] >= MIN_CHANNELS:
                return convolve_3x3(inputs, kernel, padding.upper())
        return keras.ops.conv(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


def mirrored(
    pixels: tf.Tensor, kernel_size: tuple[int, int], strides: tuple[int, int]
) -> tf.Tensor:
    """Return `pixels` with mirrored borders, as wide as the zeros of padding "same".

    The outermost pixel is repeated, too: a 3x3 kernel needs only one pixel.

    Args:
        pixels: [B, H, W, C]; H and W are multiples of the strides, and at least half of
            the kernel's size.
        kernel_size: of rows and columns.
        strides: of rows and columns.
    """
    totals = (max(size - stride, 0) for size, stride in zip(kernel_size, strides, strict=True))
    # As in TensorFlow, an odd number of pixels has one more below or to the right.
    rows, columns = ([total // 2, total - total // 2] for total in totals)
    if not any(rows + columns):
        return pixels
    return tf.pad(pixels, [[0, 0], rows, columns, [0, 0]], "SYMMETRIC")


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


def convolve_3x3(pixels: tf.Tensor, kernel: tf.Tensor, padding: str = "SAME") -> tf.Tensor:
    """Return a 3x3 convolution with stride 1, whose kernel has a fast gradient.

    Args:
        pixels: [B, H, W, C].
        kernel: [3, 3, C, D].
        padding: "SAME" adds zeros around the pixels, "VALID" nothing.

    Returns:
        [B, H, W, D]; two rows and columns less with "VALID".
    """

    @tf.custom_gradient
    def convolve(
        pixels: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_pixels = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(pixels),
                filter=kernel,
                out_backprop=upstream,
                strides=_ONES,
                padding=padding,
            )
            size = tf.shape(upstream)
            # The size of the patches is known only at run time.
            by_kernel = tf.cond(
                size[1] * size[2] <= MAX_PIXELS,
                lambda: gradient_by_taps(pixels, upstream, padding),
                lambda: tf.raw_ops.Conv2DBackpropFilter(
                    input=pixels,
                    filter_sizes=kernel.shape,
                    out_backprop=upstream,
                    strides=_ONES,
                    padding=padding,
                ),
            )
            return by_pixels, by_kernel

        return tf.nn.conv2d(pixels, kernel, 1, padding), gradient

    return convolve(pixels, kernel)


def gradient_by_taps(pixels: tf.Tensor, upstream: tf.Tensor, padding: str) -> tf.Tensor:
    """Return the gradient of the kernel of `convolve_3x3`.

    It takes one product of matrices for each of the kernel's nine positions.

    Args:
        pixels: [B, H, W, C].
        upstream: gradient by the outputs, [B, H, W, D] or two less.
        padding: that of `convolve_3x3`.

    Returns:
        [3, 3, C, D].
    """
    size = tf.shape(upstream)
    num_in, num_out = pixels.shape[-1], upstream.shape[-1]
    padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]]) if padding == "SAME" else pixels
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
