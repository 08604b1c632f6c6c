"""Augments the images of a patch, and its label, in a fixed order.

Input: strengths, and the manifest for the bands. Output: a function of a batch and a
seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import BandStatistics, Manifest
from models.augmentation import optical, radar
from models.augmentation.blurring import random_blur
from models.augmentation.config import GeometryConfig, ImageAugmentConfig, PhotometryConfig
from models.augmentation.crops import random_crop
from models.augmentation.symmetries import random_symmetry

Batch = dict[str, tf.Tensor]

AugmentFunction = Callable[[Batch, tf.Tensor], Batch]
"""Maps a batch and a seed int64 [2] to an augmented batch.

The batch holds images [B, H, W, C] by sensor and other tensors. Equal seeds give equal
changes.
"""


def make_augmenter(config: ImageAugmentConfig, manifest: Manifest) -> AugmentFunction:
    """Return the augmentation of a whole batch.

    Geometry changes all images and the label of a patch alike. Photometry then changes
    each sensor on its own.
    """

    def augment(batch: Batch, seed: tf.Tensor) -> Batch:
        seeds = tf.unstack(tf.random.split(seed, 1 + len(SENSORS)))
        changed = augment_geometry(batch, config.geometry, seeds[0])
        if config.photometry is not None:
            for sensor, own_seed in zip(SENSORS, seeds[1:], strict=True):
                if sensor in changed:
                    changed[sensor] = augment_photometry(
                        changed[sensor],
                        sensor,
                        statistics=manifest.statistics(sensor),
                        config=config.photometry,
                        seed=own_seed,
                    )
        return changed

    return augment


def augment_geometry(batch: Batch, config: GeometryConfig, seed: tf.Tensor) -> Batch:
    """Apply one window and one symmetry to all images and the label of a patch."""
    seeds = tf.unstack(tf.random.split(seed, 2))
    if config.min_crop_fraction < 1.0:
        batch = random_crop(batch, config, seeds[0])
    return random_symmetry(batch, seeds[1]) if config.symmetries else dict(batch)


def augment_photometry(
    image: tf.Tensor,
    sensor: Sensor,
    *,
    statistics: Sequence[BandStatistics],
    config: PhotometryConfig,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Change the pixel values of one sensor.

    The order is that of the causes: ground and atmosphere, instrument, processing,
    missing bands.

    Args:
        image: float32 [B, H, W, C] in dB or reflectance, NaN = no data.
        sensor: sensor of the image.
        statistics: train statistics of the C bands, in order.
        config: strengths.
        seed: int64 [2].

    Returns:
        Pixels in the same unit. A pixel is valid where `image` has all bands.
    """
    gain, noise, blur, drop = tf.unstack(tf.random.split(seed, 4))
    blurring = (config.blur_probability, config.max_blur_sigma_px)
    if sensor == "s1":
        image = radar.random_gain(image, config.s1, gain)
        image = radar.random_speckle(image, config.s1, noise)
        image = radar.random_radar_blur(image, *blurring, blur)
    else:
        image = optical.random_gain(image, config.s2, gain)
        image = optical.random_haze(image, [entry.band for entry in statistics], config.s2, noise)
        image = random_blur(image, *blurring, blur)
    if not config.band_drop_probability:
        return image
    return random_band_drop(
        image, [entry.mean for entry in statistics], config.band_drop_probability, drop
    )


def random_band_drop(
    image: tf.Tensor, means: Sequence[float], probability: float, seed: tf.Tensor
) -> tf.Tensor:
    """Replace some bands of some patches by the band's train mean.

    The mean carries no information: normalization makes it 0. NaN would not do: one
    band without data makes a pixel invalid. The patch would be empty or look like the
    outside of a swath. Pixels without data stay so. At least one band of a patch is
    kept.

    Args:
        image: float32 [B, H, W, C].
        means: train means of the C bands, in the unit of the image.
        probability: probability of each band to be replaced, 0-1.
        seed: int64 [2].
    """
    shape = tf.shape(image)
    draws = tf.random.stateless_uniform([shape[0], 1, 1, shape[3]], seed)
    # The band with the highest draw is never dropped.
    is_dropped = (draws < probability) & (draws < tf.reduce_max(draws, axis=-1, keepdims=True))
    return tf.where(is_dropped & tf.math.is_finite(image), tf.constant(means, tf.float32), image)
