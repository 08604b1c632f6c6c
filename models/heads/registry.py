"""The heads by name.

Input: a name of `SegmentConfig.head`. Output: the function that builds the head. Called
by `segmenter.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.heads.deeplab import deeplab_logits
from models.heads.linear import linear_logits
from models.heads.unet import unet_logits

HeadFunction = Callable[[Sequence[Mapping[str, Any]], Sequence[str], Sequence[int], int, str], Any]
"""(outputs of each sensor's `SensorEncoder`, its levels P1 to Pn, decoder channels, number of classes K, how a U-Net upsamples)
-> logits float32 [B, H, W, K]; all symbolic, H and W of any size that the stride 2**n
divides."""

_HEADS: dict[str, HeadFunction] = {
    "unet": unet_logits,
    "deeplab": deeplab_logits,
    "linear": linear_logits,
}


def get_head(name: str) -> HeadFunction:
    """The head of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _HEADS:
        raise ValueError(f"head must be {', '.join(_HEADS)}, got {name!r}")
    return _HEADS[name]
