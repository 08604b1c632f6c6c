"""Which pixels of a label map lie near an edge between two classes, and what each pixel counts.

Input: label ids. Output: weights of pixels. Called by `train.py` on the teacher's label
map.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from beam_jobs.contracts.labels import IGNORE


def edge_weights(label: Any, edge_weight: float, radius_px: int) -> tf.Tensor:
    """`edge_weight` where two classes are near, 1 elsewhere, 0 where there is no label.

    Near is: the window of 2 x radius_px + 1 pixels a side around the pixel, cut off at
    the patch's border, holds more than one class. No data is no class: the border of a
    swath is no edge.
    Source: ours. Garg et al. 2023 (arXiv 2302.08180) weigh edges too, for there a flood
    map is wrong most; how, could not be looked up. The band is the morphological
    gradient of the label map (dilation above erosion; Rivest, Soille, Beucher 1993).

    Args:
        label: class ids [B, H, W], 255 = no label.
        edge_weight: above 0.
        radius_px: at least 1.

    Returns:
        float32 [B, H, W].
    """
    ids = tf.cast(label, tf.float32)[..., tf.newaxis]
    is_known = ids != float(IGNORE)
    # What is unknown must win neither maximum.
    lowest_possible = -float(IGNORE) - 1.0
    highest = _window_maximum(tf.where(is_known, ids, lowest_possible), radius_px)
    lowest = -_window_maximum(tf.where(is_known, -ids, lowest_possible), radius_px)
    weight = tf.where(highest > lowest, edge_weight, 1.0)
    return tf.where(is_known, weight, 0.0)[..., 0]


def _window_maximum(values: tf.Tensor, radius_px: int) -> tf.Tensor:
    # Padding of a maximum is minus infinity: what lies outside of the patch never
    # counts.
    return tf.nn.max_pool2d(values, 2 * radius_px + 1, strides=1, padding="SAME")
