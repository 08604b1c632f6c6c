"""Gaussian blur of each patch with a width of its own, around no data.

Input and output: pixels of one sensor in physical units. Called by `augmenter.py`.
keras-cv's blur spreads NaN over the whole kernel and has one kernel size for all.
"""

from __future__ import annotations

import tensorflow as tf

from models.augmentation.no_data import pixel_mask
from models.augmentation.resampling import resample

MIN_SIGMA_PX = 0.1
"""Source: SimCLR (Chen et al. 2020, arXiv 2002.05709), appendix A."""


def random_blur(
    image: tf.Tensor, probability: float, max_sigma_px: float, seed: tf.Tensor
) -> tf.Tensor:
    """Blurs some patches; means are over valid pixels only, and what has no data has none after.

    Args:
        image: float32 [B, H, W, C] on a scale on which means make sense: reflectance,
            or backscatter as power.
        probability: share of the patches that are blurred, 0-1.
        max_sigma_px: sigma is uniform between 0.1 and this.
        seed: int64 [2].

    Returns:
        `image` with NaN in all bands of a pixel that has it in one.
    """
    shape = tf.shape(image)
    draws = tf.random.stateless_uniform([2, shape[0]], seed)
    low = min(MIN_SIGMA_PX, max_sigma_px)
    sigma = tf.where(draws[0] < probability, low + (max_sigma_px - low) * draws[1], 0.0)
    return resample(
        image, _gaussian(sigma, shape[1]), _gaussian(sigma, shape[2]), pixel_mask(image)
    )


def _gaussian(sigma: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Weights float32 [B, size, size], not scaled; those of a `sigma` [B] of 0 are the identity."""
    pixels = tf.range(tf.cast(size, tf.float32))
    distance = tf.abs(pixels[:, tf.newaxis] - pixels[tf.newaxis])
    # 0 / 0 on the diagonal counts as 0, and anything else over 0 as far away.
    narrow = tf.maximum(sigma, 1e-3)[:, tf.newaxis, tf.newaxis]
    return tf.exp(-0.5 * tf.square(distance / narrow))
