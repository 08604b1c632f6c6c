"""Changes of Sentinel-2 that leave the ground as it is: light, calibration, haze.

Input and output: reflectance, NaN = no data. keras-cv's colour layers take three bands
only.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from beam_jobs.contracts.bands import S2_BANDS
from models.augmentation.config import OpticalConfig

HAZE_WAVELENGTH_NM = 496.6
"""Wavelength at which the strength of haze is given: B2."""

ANGSTROM_EXPONENTS = (0.5, 2.0)
"""Haze falls with a power of the wavelength between these.

The low one is coarse dust and sea salt, the high one fine smoke. Source: Dubovik et al.
2002, J. Atmos. Sci. 59, table 1.
"""

_CIRRUS_BAND = "B10"


def random_gain(reflectance: tf.Tensor, config: OpticalConfig, seed: tf.Tensor) -> tf.Tensor:
    """Multiply reflectance by one random factor per patch and one per band.

    Takes and returns float32 [B, H, W, C].
    """
    shape = tf.shape(reflectance)
    draws = tf.random.stateless_uniform([shape[0], 1, 1, 1 + shape[3]], seed, minval=-1.0)
    return (
        reflectance
        * (1.0 + config.max_gain * draws[..., :1])
        * (1.0 + config.max_band_gain * draws[..., 1:])
    )


def random_haze(
    reflectance: tf.Tensor, bands: Sequence[str], config: OpticalConfig, seed: tf.Tensor
) -> tf.Tensor:
    """Add light scattered by thin haze to some patches.

    The shorter the wavelength, the more light is added.

    Args:
        reflectance: float32 [B, H, W, C].
        bands: names of the C bands. B10 gets no haze: water vapour above the haze
            absorbs all of its light.
        config: strength and probability.
        seed: int64 [2].
    """
    draws = tf.random.stateless_uniform([3, tf.shape(reflectance)[0], 1, 1, 1], seed)
    low, high = ANGSTROM_EXPONENTS
    ratio = tf.constant(
        [float(S2_BANDS[band].wavelength_nm or 0.0) / HAZE_WAVELENGTH_NM for band in bands]
    )
    spectrum = tf.pow(ratio, -(low + (high - low) * draws[1])) * [
        float(band != _CIRRUS_BAND) for band in bands
    ]
    strength = tf.where(
        draws[0] < config.haze_probability, config.max_haze_reflectance * draws[2], 0.0
    )
    return reflectance + strength * spectrum
