"""Sensor dropout: removes one of two sensors from some patches.

A model of both sensors then learns to work with either. Input and output: a batch with
both sensors, NaN = no data.
"""

from __future__ import annotations

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from models.augmentation.augmenter import Batch
from models.augmentation.no_data import pixel_mask


def drop_sensor(batch: Batch, probability: float, seed: tf.Tensor) -> Batch:
    """Return `batch` with NaN for all of one sensor in some patches.

    Both sensors are equally probable. A patch that already misses one sensor keeps the
    other. Equal seeds drop the same.

    Source: Neverova et al. 2016 (ModDrop), arXiv 1501.00102.

    Args:
        batch: `s1` and `s2` float32 [B, H, W, C], and other tensors.
        probability: probability of a patch to lose a sensor, 0-1.
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
