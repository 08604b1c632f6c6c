"""Sentinel-2: reflectance of a landscape in 13 bands on one date.

Input: landscape, label of the date, season, clouds and the sensor's random stream.
Output: float32 [13, H, W] reflectance in L1C order without gaps. It includes season,
haze, clouds and shadows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import S2_BANDS, S2_L1C_BANDS, S2_NODATA, S2_REFLECTANCE_PER_DN
from beam_jobs.simulation.clouds import Clouds
from beam_jobs.simulation.fields import FloatArray
from beam_jobs.simulation.landscape import (
    BARE,
    BUILT,
    CLASS_IDS,
    CROPS,
    GRASS,
    TREES,
    WATER,
    LabelArray,
    Landscape,
)
from beam_jobs.simulation.places import PIXEL_SIZE_M
from beam_jobs.simulation.spectra import (
    CLOUD,
    CLOUD_CIRRUS_REFLECTANCE,
    HIGH_SEASON,
    LOW_SEASON,
    WAVELENGTH_NM,
)

_TEXTURE_FRACTION = {WATER: 0.03, TREES: 0.16, GRASS: 0.08, CROPS: 0.06, BUILT: 0.28, BARE: 0.08}
_PARCEL_FRACTION = {GRASS: 0.08, CROPS: 0.12, BARE: 0.15}
_SENSOR_NOISE = 0.0015
"""Reflectance; about SNR 100 at a reference radiance. Source: Sentinel-2 MSI
requirement table, SNR 89-174."""
_RAYLEIGH_443_NM = 0.075
"""Path reflectance at 443.9 nm over dark ground; it falls with the fourth power of the
wavelength."""
_SHADOW_LIGHT = 0.35
"""Share of the light that is left in a cloud shadow; it comes from the sky."""
_CIRRUS = S2_L1C_BANDS.index("B10")


@dataclass(frozen=True, kw_only=True)
class Atmosphere:
    """Air over one scene.

    Attributes:
        haze_reflectance: additive reflectance at 496.6 nm that is left over; it is less
            at longer wavelengths.
        mud_fraction: 0-1, from clear to muddy water.
        gain: factor on the ground's reflectance, for sun angle and calibration.
        cirrus_reflectance: B10 of the clear sky.
    """

    haze_reflectance: float
    mud_fraction: float
    gain: float
    cirrus_reflectance: float


def draw_atmosphere(rng: np.random.Generator) -> Atmosphere:
    """Draw the air and the water colour of one scene."""
    return Atmosphere(
        haze_reflectance=float(rng.exponential(0.006)),
        mud_fraction=float(rng.uniform(0.1, 0.9)),
        gain=float(rng.uniform(0.92, 1.08)),
        cirrus_reflectance=float(rng.uniform(0.001, 0.005)),
    )


def surface_reflectance(
    landscape: Landscape,
    label: LabelArray,
    *,
    crop_cover: FloatArray,
    greenness: float,
    mud_fraction: float,
) -> FloatArray:
    """Return the reflectance of the ground, without air or cloud.

    Args:
        landscape: the place.
        label: uint8 [H, W], land cover with the water of this scene's hour.
        crop_cover: float32 [H, W], 0 bare soil to 1 closed canopy.
        greenness: 0-1, state of grass and trees.
        mud_fraction: 0-1, from clear to muddy water.

    Returns:
        float32 [13, H, W] in L1C order, no missing values.
    """
    low, high = np.zeros((13, 256), np.float32), np.zeros((13, 256), np.float32)
    textures, parcels, season = (np.zeros(256, np.float32) for _ in range(3))
    for class_id in CLASS_IDS:
        low[:, class_id], high[:, class_id] = LOW_SEASON[class_id], HIGH_SEASON[class_id]
        textures[class_id] = _TEXTURE_FRACTION[class_id]
        parcels[class_id] = _PARCEL_FRACTION.get(class_id, 0.0)
    season[[TREES, GRASS]], season[WATER] = greenness, mud_fraction
    state = np.where(label == CROPS, crop_cover, season[label])
    tone = 1 + textures[label] * landscape.texture + parcels[label] * landscape.parcel_tone
    np.clip(tone, 0.3, 2.2, out=tone)
    result = np.empty((13, *label.shape), np.float32)
    for band in range(13):
        result[band] = (low[band][label] + (high[band] - low[band])[label] * state) * tone
    return result


def observe(
    reflectance: FloatArray,
    atmosphere: Atmosphere,
    *,
    clouds: Clouds,
    is_top_of_atmosphere: bool,
    rng: np.random.Generator,
) -> FloatArray:
    """Return what the sensor measures over the ground.

    It adds shadows, native pixel sizes, air, clouds and noise.

    Args:
        reflectance: float32 [13, H, W] of the ground; changed in place.
        atmosphere: air of this scene.
        clouds: clouds of this scene.
        is_top_of_atmosphere: True adds the path reflectance of the air (L1C), False
            leaves only haze (L2A).
        rng: stream of the sensor noise.

    Returns:
        float32 [13, H, W], 0 or above; B10 is near 0 without cloud.
    """
    light = np.float32(atmosphere.gain) * (1 - np.float32(1 - _SHADOW_LIGHT) * clouds.shadow)
    path = atmosphere.haze_reflectance * (WAVELENGTH_NM / 496.6) ** -1.5
    if is_top_of_atmosphere:
        path = path + _RAYLEIGH_443_NM * (WAVELENGTH_NM / 443.9) ** -4
    noise = rng.standard_normal(reflectance.shape[1:], dtype=np.float32) * np.float32(_SENSOR_NOISE)
    for band, name in enumerate(S2_L1C_BANDS):
        ground = reflectance[band]
        ground *= light
        if band == _CIRRUS:
            ground[:] = atmosphere.cirrus_reflectance
        else:
            ground += np.float32(path[band])
        cloud = CLOUD[band] * clouds.brightness if band != _CIRRUS else CLOUD_CIRRUS_REFLECTANCE
        ground += clouds.opacity * (np.float32(cloud) - ground)
        # Roll one noise field for each band: the bands look independent, at a
        # thirteenth of the cost.
        if band != _CIRRUS:
            ground += np.roll(noise, 17 * band)
        reflectance[band] = coarsen(
            ground, round(S2_BANDS[name].native_pixel_size_m / PIXEL_SIZE_M)
        )
    return np.maximum(reflectance, 0.0, out=reflectance)


def coarsen(band: FloatArray, factor: int) -> FloatArray:
    """Return means of blocks of `factor` pixels a side, at the size of the input.

    Bands of 20 and 60 m come on a 10 m grid in this way.

    Args:
        band: float32 [H, W] without missing values, any size.
        factor: pixels a side; 1 returns `band`.
    """
    if factor == 1:
        return band
    height, width = band.shape
    padded = np.pad(band, ((0, -height % factor), (0, -width % factor)), mode="edge")
    blocks = padded.reshape(
        padded.shape[0] // factor, factor, padded.shape[1] // factor, factor
    ).mean(axis=(1, 3))
    return blocks.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]


def to_dn(reflectance: FloatArray, valid_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    """Return stored numbers uint16 [C, H, W]: reflectance x 10000, 0 = no data.

    Valid pixels are at least 1.

    Args:
        reflectance: float32 [C, H, W], 0 or above.
        valid_mask: bool [H, W], True = usable.
    """
    dn = np.rint(np.clip(reflectance / np.float32(S2_REFLECTANCE_PER_DN), 1, 65535)).astype(
        np.uint16
    )
    # A dark pixel must not look like a missing one, so valid values start at 1.
    dn[:, ~valid_mask] = S2_NODATA
    return dn
