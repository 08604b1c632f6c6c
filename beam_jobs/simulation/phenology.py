"""The season: greenness of grass and trees, and growth of crops.

Input: day of the year, latitude and landscape. Output: values 0-1.
"""

from __future__ import annotations

import numpy as np

from beam_jobs.simulation.fields import FloatArray

_PEAK_DAY_NORTH = 180.0
_DAYS_PER_YEAR = 365.25
_CROP_SPREAD_DAYS = 100.0
_CROP_DURATION_DAYS = 55.0


def season_greenness(day_of_year: int, latitude_degrees: float) -> float:
    """Return the greenness of perennial plants, 0.25 (midwinter) to 1 (midsummer).

    The southern hemisphere is half a year off.

    Args:
        day_of_year: 1-366.
        latitude_degrees: below 0 is south.
    """
    peak_day = _PEAK_DAY_NORTH if latitude_degrees >= 0 else _PEAK_DAY_NORTH + _DAYS_PER_YEAR / 2
    return float(0.625 + 0.375 * np.cos(2 * np.pi * (day_of_year - peak_day) / _DAYS_PER_YEAR))


def crop_cover(day_of_year: int, latitude_degrees: float, parcel_phase: FloatArray) -> FloatArray:
    """Return the ground cover of crops, float32 [H, W], 0 bare to 1 closed canopy.

    Each parcel has a bell curve over the year with a peak of its own. So neighbours
    differ on one date, and a parcel differs between dates.

    Args:
        day_of_year: 1-366.
        latitude_degrees: below 0 is south.
        parcel_phase: float32 [H, W], 0-1, early to late crops.
    """
    peak_day = _PEAK_DAY_NORTH if latitude_degrees >= 0 else _PEAK_DAY_NORTH + _DAYS_PER_YEAR / 2
    peak = peak_day + (parcel_phase - np.float32(0.5)) * np.float32(2 * _CROP_SPREAD_DAYS)
    # Take the distance on the circle of the year: a peak in January is near to
    # December.
    half_year = _DAYS_PER_YEAR / 2
    days = (
        np.mod(np.float32(day_of_year) - peak + np.float32(half_year), np.float32(_DAYS_PER_YEAR))
        - half_year
    )
    return np.exp(-((days / np.float32(_CROP_DURATION_DAYS)) ** 2)).astype(np.float32)
