"""The decoder of a U-Net: upsampling by two, with a skip at each level and the pixels.

Input: outputs of the encoders, in the order of the sensors. Output: logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from models.config import Border
from models.heads.blocks import concatenate, conv_bn_relu
from models.layers.upsampling import UpSampling2D


def unet_logits(
    outputs: Sequence[Mapping[str, Any]],
    levels: Sequence[str],
    channels: Sequence[int],
    num_classes: int,
    interpolation: str,
    border: Border,
) -> Any:
    """Return logits float32 [B, H, W, K]; see `registry.HeadFunction`.

    The last of `channels` are used, one per level. The interpolation "nearest" repeats
    pixels, which two convolutions then smooth; "bilinear" takes longer
    (docs/performance.md).
    Source: Ronneberger et al. 2015 (U-Net), arXiv 1505.04597, with a residual encoder.

    Raises:
        ValueError: fewer channels than levels.
    """
    if len(channels) < len(levels):
        raise ValueError(
            f"decoder_channels must hold at least {len(levels)} values, got {channels}"
        )
    # The skips go from the level above the deepest one up to the normalized pixels. The
    # pixels come with their mask, so that the decoder can tell no data from a mean
    # value. Mask and bands are one tensor: a convolution of the mask alone would take
    # as long as that of the bands.
    skips = [[output[level] for output in outputs] for level in reversed(levels[:-1])]
    skips.append(
        [
            concatenate(
                [output[name] for output in outputs for name in ("normalized", "valid_mask")],
                "pixels",
            )
        ]
    )
    x = concatenate([output[levels[-1]] for output in outputs], "deepest")
    for index, (width, skip) in enumerate(zip(channels[-len(levels) :], skips, strict=True)):
        x = UpSampling2D(2, interpolation=interpolation, name=f"decoder{index}_up")(x)
        x = conv_bn_relu([x, *skip], width, f"decoder{index}_0", border=border)
        x = conv_bn_relu(x, width, f"decoder{index}_1", border=border)
    # float32 under every policy: loss and probabilities near 0 and 1 need the digits.
    return keras.layers.Conv2D(num_classes, 1, dtype="float32", name="logits")(x)
