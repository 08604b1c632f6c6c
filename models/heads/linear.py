"""The linear probe: one 1x1 convolution on all levels of the pyramids, at full size.

Input: outputs of the encoders, in the order of the sensors. Output: logits. The head
measures the encoder: it has no hidden layer and no normalization, and sees neither the
pixels nor their neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models.config import Border
from models.heads.blocks import concatenate
from models.layers.upsampling import UpSampling2D


def linear_logits(
    outputs: Sequence[Mapping[str, Any]],
    levels: Sequence[str],
    channels: Sequence[int],
    num_classes: int,
    interpolation: str,
    border: Border,
) -> Any:
    """Return logits float32 [B, H, W, K]; see `registry.HeadFunction`.

    `channels` and `border` have no effect: there is no hidden layer, and a 1x1
    convolution has no border. The result equals a 1x1 convolution on the levels after
    bilinear upsampling and concatenation, since both are linear and the weights of an
    interpolation add up to 1. Convolving first upsamples K channels and not thousands.
    """
    del channels, interpolation, border
    parts = []
    for index, level in enumerate(levels):
        features = concatenate([output[level] for output in outputs], level)
        # A sum needs only one bias.
        conv = keras.layers.Conv2D(
            num_classes, 1, use_bias=index == 0, dtype="float32", name=f"linear_{level}"
        )
        up = UpSampling2D(2 ** (index + 1), dtype="float32", name=f"up_{level}")
        parts.append(up(conv(features)))
    return keras.layers.Add(dtype="float32", name="logits")(parts)
