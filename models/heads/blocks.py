"""Parts that more than one head is built of.

Input and output: symbolic tensors of Keras' functional API. Called by the heads of this
package only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from models.layers.batch_norm import BatchNormalization
from models.layers.convolution import Conv2D


def concatenate(tensors: Sequence[Any], name: str) -> Any:
    """Channels of all `tensors` [B, H, W, C_i], one after the other; a single tensor is taken as it is."""
    return (
        tensors[0]
        if len(tensors) == 1
        else keras.layers.Concatenate(name=f"{name}_concat")(list(tensors))
    )


def conv_bn_relu(
    x: Any, channels: int, name: str, *, kernel_size: int = 3, dilation: int = 1
) -> Any:
    """Convolution that keeps the size, batch normalization, ReLU: [B, H, W, C], or several of them -> [B, H, W, `channels`]."""
    # No bias: the normalization behind it would take it out again.
    x = Conv2D(
        channels,
        kernel_size,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        name=f"{name}_conv",
    )(x)
    return norm_relu(x, name)


def norm_relu(x: Any, name: str) -> Any:
    """Batch normalization and ReLU."""
    return keras.layers.Activation("relu", name=f"{name}_relu")(
        BatchNormalization(name=f"{name}_bn")(x)
    )
