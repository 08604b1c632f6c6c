"""Sensor dropout: one of two sensors taken from some patches, so that a model of both learns to do with either.

Input and output: a batch with both sensors, NaN = no data. Called by `segment.py`.
"""

from __future__ import annotations

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from models.augmentation.augmenter import Batch
from models.augmentation.no_data import pixel_mask


def drop_sensor(batch: Batch, probability: float, seed: tf.Tensor) -> Batch:
    """`batch` with NaN for all of one sensor, either equally likely, in some patches; equal seeds drop the same.

    A patch of which one sensor has no data already keeps the other.
    Source: Neverova et al. 2016 (ModDrop), arXiv 1501.00102.

    Args:
        batch: `s1` and `s2` float32 [B, H, W, C], and anything else.
        probability: that a patch loses a sensor, 0-1.
        seed: int64 [2].
    """
    has_data = tf.stack(
        [tf.reduce_any(pixel_mask(batch[sensor]), axis=[1, 2]) for sensor in SENSORS]
    )  # [2, B]
    draws = tf.random.stateless_uniform([2, tf.shape(has_data)[1]], seed)
    is_hit = (draws[0] < probability) & tf.reduce_all(has_data, axis=0)
    is_first = draws[1] < 0.5
    dropped = dict(batch)
    for sensor, is_its_turn in zip(SENSORS, (is_first, ~is_first), strict=True):
        is_dropped = (is_hit & is_its_turn)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        dropped[sensor] = tf.where(is_dropped, float("nan"), batch[sensor])
    return dropped
