"""The heads by name.

Input: a name of `SegmentConfig.head`. Output: the function that builds the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.config import Border
from models.heads.deeplab import deeplab_logits
from models.heads.linear import linear_logits
from models.heads.unet import unet_logits

HeadFunction = Callable[
    [Sequence[Mapping[str, Any]], Sequence[str], Sequence[int], int, str, Border], Any
]
"""Builds a head from symbolic tensors; returns logits float32 [B, H, W, K].

The arguments are the outputs of each sensor's `SensorEncoder`, its levels P1 to Pn, the
decoder channels, the number of classes K, the interpolation of a U-Net and what
convolutions see beyond the border. H and W may be any multiples of the stride 2**n.
"""

_HEADS: dict[str, HeadFunction] = {
    "unet": unet_logits,
    "deeplab": deeplab_logits,
    "linear": linear_logits,
}


def get_head(name: str) -> HeadFunction:
    """Return the head of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in _HEADS:
        raise ValueError(f"head must be {', '.join(_HEADS)}, got {name!r}")
    return _HEADS[name]
