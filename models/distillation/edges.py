"""Pixel weights that are larger near the edges between classes of a label map.

Input: label ids, in distillation the teacher's. Output: weights of pixels.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from beam_jobs.contracts.labels import IGNORE


def edge_weights(label: Any, edge_weight: float, radius_px: int) -> tf.Tensor:
    """Return `edge_weight` near an edge, 1 elsewhere, 0 where there is no label.

    A pixel is near an edge when the window around it holds more than one class. The
    window has 2 x radius_px + 1 pixels a side and ends at the patch's border. No data
    is not a class, so the border of a swath is not an edge.
    Source: this project. Garg et al. 2023 (arXiv 2302.08180) weigh edges too, because
    flood maps have most errors there; their formula could not be looked up. The band is
    the morphological gradient of the label map (dilation above erosion; Rivest, Soille,
    Beucher 1993).

    Args:
        label: class ids [B, H, W], 255 = no label.
        edge_weight: above 0.
        radius_px: at least 1.

    Returns:
        float32 [B, H, W].
    """
    ids = tf.cast(label, tf.float32)[..., tf.newaxis]
    is_known = ids != float(IGNORE)
    # Unknown pixels must never be the maximum.
    lowest_possible = -float(IGNORE) - 1.0
    highest = _window_maximum(tf.where(is_known, ids, lowest_possible), radius_px)
    lowest = -_window_maximum(tf.where(is_known, -ids, lowest_possible), radius_px)
    weight = tf.where(highest > lowest, edge_weight, 1.0)
    return tf.where(is_known, weight, 0.0)[..., 0]


def _window_maximum(values: tf.Tensor, radius_px: int) -> tf.Tensor:
    # max_pool2d pads with minus infinity, so pixels outside of the patch never count.
    return tf.nn.max_pool2d(values, 2 * radius_px + 1, strides=1, padding="SAME")
