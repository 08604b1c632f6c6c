"""Changes of Sentinel-1 that leave the ground as it is: gain, speckle, blur.

Gain is an offset in dB; speckle multiplies the power. Input and output: backscatter in
dB, NaN = no data.
"""

from __future__ import annotations

import math

import tensorflow as tf

from models.augmentation.blurring import random_blur
from models.augmentation.config import RadarConfig

MAX_LOOKS_RATIO = 4.0
"""Looks of the weakest speckle divided by those of the strongest.

The weakest speckle then has half the standard deviation.
"""

_DB_PER_E = 10.0 / math.log(10.0)
"""dB of a factor e in power."""

_MIN_SPECKLE = 1e-4
"""-40 dB. Speckle of 0 would be minus infinity in dB, which counts as no data."""


def random_gain(backscatter_db: tf.Tensor, config: RadarConfig, seed: tf.Tensor) -> tf.Tensor:
    """Add one random offset in dB per patch and one per polarization.

    Takes and returns float32 [B, H, W, C], in dB.
    """
    shape = tf.shape(backscatter_db)
    draws = tf.random.stateless_uniform([shape[0], 1, 1, 1 + shape[3]], seed, minval=-1.0)
    return (
        backscatter_db
        + config.max_gain_db * draws[..., :1]
        + config.max_polarization_gain_db * draws[..., 1:]
    )


def random_speckle(backscatter_db: tf.Tensor, config: RadarConfig, seed: tf.Tensor) -> tf.Tensor:
    """Multiply the power of some patches by gamma noise of mean 1.

    The noise is drawn for each pixel and polarization. With L looks its variance is 1 /
    L; L differs between patches. Source: Goodman 1976, JOSA 66(11): the intensity of
    fully developed speckle, averaged over L looks, is gamma distributed with shape L.
    The cube root of the noise is drawn as a normal (Wilson and Hilferty 1931, PNAS
    17(12)), which takes a seventh of the time of an exact draw.

    Args:
        backscatter_db: float32 [B, H, W, C].
        config: looks and probability.
        seed: int64 [2].
    """
    shape = tf.shape(backscatter_db)
    own_seed = tf.random.experimental.stateless_fold_in(seed, 0)
    draws = tf.random.stateless_uniform([2, shape[0], 1, 1, 1], own_seed)
    looks = config.min_speckle_looks * (1.0 + (MAX_LOOKS_RATIO - 1.0) * draws[1])
    noise_seed = tf.random.experimental.stateless_fold_in(seed, 1)
    cube_root = (
        1.0
        - 1.0 / (9.0 * looks)
        + tf.random.stateless_normal(shape, noise_seed) / (3.0 * tf.sqrt(looks))
    )
    speckle_db = 3.0 * _DB_PER_E * tf.math.log(tf.maximum(cube_root, _MIN_SPECKLE ** (1.0 / 3.0)))
    return backscatter_db + tf.where(draws[0] < config.speckle_probability, speckle_db, 0.0)


def random_radar_blur(
    backscatter_db: tf.Tensor, probability: float, max_sigma_px: float, seed: tf.Tensor
) -> tf.Tensor:
    """Blur the power of some patches; takes and returns dB.

    The mean of dB values is lower than the dB of the mean, so it would darken speckle.
    The arguments are those of `random_blur`.
    """
    return as_db(random_blur(as_power(backscatter_db), probability, max_sigma_px, seed))


def as_power(backscatter_db: tf.Tensor) -> tf.Tensor:
    """Return backscatter as power, of dB; NaN stays NaN.

    Means over pixels are taken of power: it is what the ground sends back.
    """
    return tf.exp(backscatter_db / _DB_PER_E)


def as_db(power: tf.Tensor) -> tf.Tensor:
    """Return backscatter in dB, of power; NaN stays NaN."""
    return _DB_PER_E * tf.math.log(power)
