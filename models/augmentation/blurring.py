"""Gaussian blur that respects no data, with a different width for each patch.

Input and output: pixels of one sensor in physical units. keras-cv's blur spreads NaN
over the whole kernel and uses one kernel size for all patches.
"""

from __future__ import annotations

import tensorflow as tf

from models.augmentation.no_data import pixel_mask
from models.augmentation.resampling import resample

MIN_SIGMA_PX = 0.1
"""Smallest sigma, in pixels.

Source: SimCLR (Chen et al. 2020, arXiv 2002.05709), appendix A.
"""


def random_blur(
    image: tf.Tensor, probability: float, max_sigma_px: float, seed: tf.Tensor
) -> tf.Tensor:
    """Blur some patches.

    Means are taken over valid pixels only. Pixels without data stay so.

    Args:
        image: float32 [B, H, W, C] on a linear scale: reflectance, or backscatter as
            power.
        probability: probability of a patch to be blurred, 0-1.
        max_sigma_px: largest sigma; sigma is uniform between 0.1 and this, in pixels.
        seed: int64 [2].

    Returns:
        The image. A pixel that is NaN in one band is NaN in all bands.
    """
    shape = tf.shape(image)
    draws = tf.random.stateless_uniform([2, shape[0]], seed)
    low = min(MIN_SIGMA_PX, max_sigma_px)
    sigma = tf.where(draws[0] < probability, low + (max_sigma_px - low) * draws[1], 0.0)
    return resample(
        image, _gaussian(sigma, shape[1]), _gaussian(sigma, shape[2]), pixel_mask(image)
    )


def _gaussian(sigma: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return weights float32 [B, size, size], not normalized.

    A `sigma` [B] of 0 gives the identity.
    """
    pixels = tf.range(tf.cast(size, tf.float32))
    distance = tf.abs(pixels[:, tf.newaxis] - pixels[tf.newaxis])
    # The floor avoids 0 / 0 on the diagonal; every other pixel is then far away.
    narrow = tf.maximum(sigma, 1e-3)[:, tf.newaxis, tf.newaxis]
    return tf.exp(-0.5 * tf.square(distance / narrow))
