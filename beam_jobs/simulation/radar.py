"""Sentinel-1: backscatter of a landscape in dB.

Input: landscape, label of the date, orbit, nuisance and the speckle's random stream.
Output: float32 [2, H, W] VV, VH in dB without gaps. It includes speckle, noise floor,
layover and one of two presets of nuisance.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from beam_jobs.scenes.radiometry import db_to_power, power_to_db
from beam_jobs.simulation.acquisitions import OrbitState
from beam_jobs.simulation.fields import FloatArray, smooth_field
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
from beam_jobs.simulation.swaths import track_lean
from beam_jobs.simulation.terrain import slope_east

NUM_LOOKS = 4.4
"""Equivalent number of looks of IW GRDH. Source: Sentinel-1 Product Definition, table
of IW GRD HR characteristics."""
NOISE_FLOOR_DB = (-24.0, -28.0)
"""Thermal noise of VV and VH. Source: -22 dB or less is required; IW products state -22
to -30 dB by sub-swath."""

# Mean VV, VH in dB near 38 degrees incidence. Rounded values inside the C-band ranges
# of Ulaby and Dobson, Handbook of Radar Scattering Statistics for Terrain (1989); water
# as calm inland water in Sen1Floods11 scenes.
MEAN_BACKSCATTER_DB: dict[int, tuple[float, float]] = {
    WATER: (-20.0, -27.0),
    TREES: (-9.0, -14.5),
    GRASS: (-12.5, -19.5),
    CROPS: (-13.0, -21.0),
    BUILT: (-5.5, -12.5),
    BARE: (-14.0, -22.5),
}
_FULL_CROP_GAIN_DB = (3.0, 6.0)
"""Gain of VV and VH from bare soil to a closed canopy; volume scattering raises VH
more. Source: Vreugdenhil et al. 2018, RS 10(9)."""
_PARCEL_SD_DB = {TREES: 0.5, GRASS: 0.8, CROPS: 1.0, BARE: 1.0}
_TEXTURE_SD_DB = {WATER: 0.1, TREES: 0.5, GRASS: 0.4, CROPS: 0.4, BUILT: 2.0, BARE: 0.5}
_ROW_DB = 0.6
_POINT_DB = 11.0
_LAYOVER_DB = 6.0
_SLOPE_DB_PER_UNIT = 30.0
"""Ground that faces the sensor is brighter: about 0.3 dB per percent of slope near 38
degrees incidence."""


@dataclass(frozen=True, kw_only=True)
class Nuisance:
    """What hides the classes in one radar scene; the defaults are a clean scene.

    Attributes:
        class_offset_db: float32 [256, 2], added by label id and polarization: moisture,
            incidence, roughness, growth.
        wind_db: gain that wind gives to water in VV; VH gets half of it.
        wind_streaks: float32 [H, W], 0-1, where on the water the wind blows; None =
            calm.
        ramp_db: near range minus far range, across the scene.
        offset_db: VV, VH, the same for all pixels.
    """

    class_offset_db: FloatArray = field(default_factory=lambda: np.zeros((256, 2), np.float32))
    wind_db: float = 0.0
    wind_streaks: FloatArray | None = None
    ramp_db: float = 0.0
    offset_db: tuple[float, float] = (0.0, 0.0)


def draw_nuisance(
    preset: Literal["private", "augmentable"], rng: np.random.Generator, size_px: int
) -> Nuisance:
    """Draw the nuisance of one scene.

    `private` has jitter per class of sd 1.5 dB and soil moisture, wind of up to 9 dB on
    water, a ramp of sd 3 dB and an offset of sd 0.5 dB. The usual augmentations cannot
    imitate these. `augmentable` has an offset of sd 1.8 dB plus 1.0 dB per polarization
    and nothing else. Brightness jitter imitates it. A claim that holds under both
    presets is more likely a rigged generator than a finding.

    Args:
        preset: which of the two.
        rng: stream of this scene's nuisance.
        size_px: height and width.
    """
    if preset == "augmentable":
        common_db, extra_db = rng.normal(0.0, 1.8), rng.normal(0.0, 1.0, 2)
        return Nuisance(offset_db=(float(common_db + extra_db[0]), float(common_db + extra_db[1])))
    class_offset_db = np.zeros((256, 2), np.float32)
    class_offset_db[list(CLASS_IDS)] = rng.normal(0.0, 1.5, (len(CLASS_IDS), 2))
    # Wet soil raises the dielectric constant. Open ground gets brighter; closed
    # canopies and roofs hardly change.
    moisture_db = rng.uniform(-1.5, 1.5)
    class_offset_db[BARE] += np.float32(moisture_db)
    class_offset_db[[GRASS, CROPS]] += np.float32(0.6 * moisture_db)
    offset = rng.normal(0.0, 0.5)
    ramp_db = float(rng.normal(0.0, 3.0))
    wind_db = float(rng.uniform(0.0, 9.0))
    streaks = 1 / (1 + np.exp(-2 * smooth_field(rng, size_px, max(4.0, size_px / 8))))
    return Nuisance(
        class_offset_db=class_offset_db,
        wind_db=wind_db,
        wind_streaks=streaks.astype(np.float32),
        ramp_db=ramp_db,
        offset_db=(float(offset), float(offset)),
    )


def mean_backscatter_db(
    landscape: Landscape, label: LabelArray, crop_cover: FloatArray, orbit_state: OrbitState
) -> FloatArray:
    """Return the expected VV, VH before nuisance, noise floor and speckle.

    Args:
        landscape: the place.
        label: uint8 [H, W], land cover with the water of this scene's hour.
        crop_cover: float32 [H, W], 0 bare soil to 1 closed canopy, used on crops only.
        orbit_state: ascending passes look east, descending ones west.

    Returns:
        float32 [2, H, W] in dB, no missing values.
    """
    means, textures, parcels = (
        np.zeros((256, 2), np.float32),
        np.zeros(256, np.float32),
        np.zeros(256, np.float32),
    )
    for class_id in CLASS_IDS:
        means[class_id] = MEAN_BACKSCATTER_DB[class_id]
        textures[class_id] = _TEXTURE_SD_DB[class_id]
        parcels[class_id] = _PARCEL_SD_DB.get(class_id, 0.0)
    is_crop = label == CROPS
    detail = textures[label] * landscape.texture + parcels[label] * landscape.parcel_tone
    detail += np.where(is_crop, np.float32(_ROW_DB) * landscape.row_wave, 0)
    facing = slope_east(landscape.terrain.height_m, PIXEL_SIZE_M)
    # Slopes that rise in the look direction face the sensor. Water is flat, whatever
    # its bed is.
    facing = np.where(label == WATER, 0, facing if orbit_state == "ascending" else -facing)
    detail += np.clip(np.float32(_SLOPE_DB_PER_UNIT) * facing, -2.0, 2.0)
    detail += _layover_db(landscape, label, orbit_state)
    gain = np.array(_FULL_CROP_GAIN_DB, np.float32)[:, None, None] * np.where(
        is_crop, crop_cover, 0
    )
    return np.stack([means[:, 0][label], means[:, 1][label]]) + detail + gain


def add_nuisance_db(
    backscatter_db: FloatArray, label: LabelArray, nuisance: Nuisance, orbit_state: OrbitState
) -> FloatArray:
    """Return `backscatter_db` float32 [2, H, W] with one scene's nuisance added."""
    size_px = label.shape[0]
    result = backscatter_db + np.array(nuisance.offset_db, np.float32)[:, None, None]
    result[0] += nuisance.class_offset_db[:, 0][label]
    result[1] += nuisance.class_offset_db[:, 1][label]
    if nuisance.wind_streaks is not None:
        wind = np.where(label == WATER, nuisance.wind_streaks * np.float32(nuisance.wind_db), 0)
        result[0] += wind
        result[1] += wind / 2
    if nuisance.ramp_db:
        result += np.float32(nuisance.ramp_db) * near_range(size_px, orbit_state)
    return result


def near_range(size_px: int, orbit_state: OrbitState) -> FloatArray:
    """Return the position across the track, float32 [H, W].

    At mid-height it is 0.5 at the near edge and -0.5 at the far edge. Both satellites
    look right: ascending passes fly north and have near range in the west, descending
    ones in the east.
    """
    rows, columns = np.indices((size_px, size_px), dtype=np.float32)
    shifted = columns - np.float32(track_lean(orbit_state)) * (rows - np.float32(size_px / 2))
    west_first = np.float32(0.5) - shifted / np.float32(size_px - 1)
    return west_first if orbit_state == "ascending" else -west_first


def measure(backscatter_db: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return what the instrument records.

    Thermal noise is added and gamma speckle is multiplied, both in power.

    Args:
        backscatter_db: expected VV, VH float32 [2, H, W] in dB.
        rng: stream of this scene's speckle.

    Returns:
        float32 [2, H, W] in dB.
    """
    noise = db_to_power(np.array(NOISE_FLOOR_DB, np.float32))[:, None, None]
    return power_to_db((db_to_power(backscatter_db) + noise) * speckle(rng, backscatter_db.shape))


def speckle(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Return multiplicative speckle in power, float32 above 0.

    It has a gamma distribution with mean 1 and `NUM_LOOKS` looks.
    """
    gamma = rng.standard_gamma(NUM_LOOKS, shape, dtype=np.float32) / np.float32(NUM_LOOKS)
    # The logarithm of an underflowed 0 would be -inf, which no reader expects.
    return np.maximum(gamma, np.float32(1e-4))


def _layover_db(landscape: Landscape, label: LabelArray, orbit_state: OrbitState) -> FloatArray:
    """Return the gain in dB from walls.

    Points are bright where walls stand. Their layover is one or two pixels towards the
    sensor.
    """
    points: npt.NDArray[np.bool_] = landscape.bright_point & (label == BUILT)
    result = np.where(points, np.float32(_POINT_DB), np.float32(0))
    for shift_px in (1, 2):
        # Near range is in the west on ascending passes. The top of a building is nearer
        # to the sensor than its foot.
        moved = np.zeros_like(points)
        if orbit_state == "ascending":
            moved[:, :-shift_px] = points[:, shift_px:]
        else:
            moved[:, shift_px:] = points[:, :-shift_px]
        result = np.maximum(result, np.where(moved, np.float32(_LAYOVER_DB / shift_px), 0))
    return result
