"""The linear probe: one 1x1 convolution on all levels of the pyramids, at full size.

Input: what the encoders give, in the order of the sensors. Output: logits. Called
through `registry.py`. Nothing in it can learn what the encoder does not know: no hidden
layer, no normalization, no look at the pixels or at neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models.heads.blocks import concatenate
from models.layers.upsampling import UpSampling2D


def linear_logits(
    outputs: Sequence[Mapping[str, Any]],
    levels: Sequence[str],
    channels: Sequence[int],
    num_classes: int,
    interpolation: str,
) -> Any:
    """Logits float32 [B, H, W, K]; see `registry.HeadFunction`. `channels` does not matter: nothing is hidden.

    The same as a 1x1 convolution on the levels upsampled bilinearly and concatenated,
    since both are linear and the weights of an interpolation add up to 1; but it is K
    channels that are upsampled, not thousands.
    """
    del channels, interpolation
    parts = []
    for index, level in enumerate(levels):
        features = concatenate([output[level] for output in outputs], level)
        # One bias is enough for a sum.
        conv = keras.layers.Conv2D(
            num_classes, 1, use_bias=index == 0, dtype="float32", name=f"linear_{level}"
        )
        up = UpSampling2D(2 ** (index + 1), dtype="float32", name=f"up_{level}")
        parts.append(up(conv(features)))
    return keras.layers.Add(dtype="float32", name="logits")(parts)
