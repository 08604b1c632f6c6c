"""Building blocks that several heads share.

Input and output: symbolic tensors of Keras' functional API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from models.config import Border
from models.layers.batch_norm import BatchNormalization
from models.layers.convolution import Conv2D


def concatenate(tensors: Sequence[Any], name: str) -> Any:
    """Return `tensors` [B, H, W, C_i] concatenated by channel; one tensor as it is."""
    return (
        tensors[0]
        if len(tensors) == 1
        else keras.layers.Concatenate(name=f"{name}_concat")(list(tensors))
    )


def conv_bn_relu(
    x: Any,
    channels: int,
    name: str,
    *,
    kernel_size: int = 3,
    dilation: int = 1,
    border: Border = "zeros",
) -> Any:
    """Return `x` after a convolution that keeps the size, batch normalization and ReLU.

    Args:
        x: [B, H, W, C], or several such tensors that stand for their concatenation.
        channels: width of the output.
        name: prefix of the layers' names.
        kernel_size: of the convolution.
        dilation: of the convolution.
        border: what the convolution sees beyond the border.

    Returns:
        [B, H, W, `channels`].
    """
    # No bias: the normalization after it would remove it again.
    x = Conv2D(
        channels,
        kernel_size,
        padding="same",
        dilation_rate=dilation,
        border=border,
        use_bias=False,
        name=f"{name}_conv",
    )(x)
    return norm_relu(x, name)


def norm_relu(x: Any, name: str) -> Any:
    """Return `x` after batch normalization and ReLU."""
    return keras.layers.Activation("relu", name=f"{name}_relu")(
        BatchNormalization(name=f"{name}_bn")(x)
    )
