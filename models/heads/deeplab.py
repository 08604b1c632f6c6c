"""The decoder of DeepLabV3+.

Dilated convolutions see the deepest features at several distances at once; one skip at
a quarter of the size follows. Input: outputs of the encoders, in the order of the
sensors. Output: logits. It is made of plain Keras layers: keras-cv's `DeepLabV3Plus`
needs its own backbone of one input, and resizes to sizes that are fixed when it is
built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models.config import Border
from models.heads.blocks import concatenate, conv_bn_relu, norm_relu
from models.layers.upsampling import UpSampling2D

ATROUS_RATES = (6, 12, 18)
ATROUS_STRIDE = 16
"""Rates of the dilated convolutions on features of this stride.

Under another stride the rates change, so that they reach equally far on the ground.
Source: Chen et al. 2018, arXiv 1802.02611, section 4 (as in DeepLabV3, arXiv
1706.05587, section 3.3).
"""

LOW_LEVEL = "P2"
LOW_LEVEL_STRIDE = 4
LOW_LEVEL_CHANNELS = 48
"""Level, stride and width of the skip.

Source: Chen et al. 2018, section 4.1 and table 1.
"""


def deeplab_logits(
    outputs: Sequence[Mapping[str, Any]],
    levels: Sequence[str],
    channels: Sequence[int],
    num_classes: int,
    interpolation: str,
    border: Border,
) -> Any:
    """Return logits float32 [B, H, W, K]; see `registry.HeadFunction`.

    The first of `channels` is the width of all convolutions. The image-level features
    are the encoders' `pooled`, which ignores no data. They come from the whole patch,
    so a pixel's class depends slightly on the size of the input.
    Source: Chen et al. 2018 (DeepLabV3+), arXiv 1802.02611, figure 2 (256 channels),
    with plain instead of separable convolutions. The dilated convolutions always see
    zeros beyond the border: they reach further than a patch has cells to mirror.

    Raises:
        ValueError: no channels.
    """
    # Bilinear, as published: repeated pixels would be visible after a factor of four.
    del interpolation
    if not channels:
        raise ValueError(f"decoder_channels must hold at least 1 value, got {channels}")
    width, stride = channels[0], 2 ** len(levels)
    deepest = concatenate([output[levels[-1]] for output in outputs], "deepest")
    pooled = concatenate([output["pooled"] for output in outputs], "pooled")
    x = _pyramid_pooling(deepest, pooled, width, stride)
    x = UpSampling2D(stride // LOW_LEVEL_STRIDE, name="aspp_up")(x)
    low_level = concatenate([output[LOW_LEVEL] for output in outputs], "low_level")
    low_level = conv_bn_relu(low_level, LOW_LEVEL_CHANNELS, "low_level", kernel_size=1)
    x = concatenate([x, low_level], "decoder")
    for index in range(2):
        x = conv_bn_relu(x, width, f"decoder_{index}", border=border)
    # float32 under every policy: loss and probabilities near 0 and 1 need the digits.
    x = keras.layers.Conv2D(num_classes, 1, dtype="float32", name="coarse_logits")(x)
    return UpSampling2D(LOW_LEVEL_STRIDE, dtype="float32", name="logits")(x)


def _pyramid_pooling(deepest: Any, pooled: Any, width: int, stride: int) -> Any:
    """Return the atrous spatial pyramid pooling of the deepest features.

    Args:
        deepest: [B, h, w, D].
        pooled: float32 [B, D].
        width: channels of the output.
        stride: pixels per cell of `deepest`.

    Returns:
        [B, h, w, `width`].
    """
    branches = [conv_bn_relu(deepest, width, "aspp_0", kernel_size=1)]
    for index, rate in enumerate(ATROUS_RATES, start=1):
        dilation = max(1, rate * ATROUS_STRIDE // stride)
        branches.append(conv_bn_relu(deepest, width, f"aspp_{index}", dilation=dilation))
    x = concatenate(branches, "aspp")
    x = keras.layers.Conv2D(width, 1, use_bias=False, name="aspp_project_conv")(x)
    # A bias and no batch normalization: each patch has only one value here, too few for
    # statistics.
    image = keras.layers.Dense(width, activation="relu", name="image")(pooled)
    # The image features are the same at every pixel. A 1x1 convolution of their copies
    # equals a sum, so do not copy them.
    image = keras.layers.Dense(width, use_bias=False, name="image_project")(image)
    image = keras.layers.Reshape((1, 1, width), name="image_reshape")(image)
    return norm_relu(keras.layers.Add(name="aspp_project_add")([x, image]), "aspp_project")
