"""Radiometry: stored pixels to physical values with NaN as no data.

Also converts dB to power and back, and detects the 2022 Sentinel-2 offset. Pure NumPy.
These functions run between reading and resampling: resampling must see power instead of
dB, and must never mix no data into its neighbours.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import (
    S1_VALID_RANGE_DB,
    S2_BASELINE_0400_DN_OFFSET,
    S2_MAX_DN,
    S2_REFLECTANCE_PER_DN,
    Sensor,
)

FloatArray = npt.NDArray[np.float32]
LEAST_REFLECTANCE = -1.0
"""Lower values are fill values that the item does not declare.

Dark surfaces that were corrected too far come to about -0.1.
"""


def db_to_power(backscatter_db: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert backscatter in dB to linear power, 10^(dB/10); NaN stays NaN."""
    return np.power(10.0, backscatter_db / 10.0)


def power_to_db(backscatter_power: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert linear power to dB; power of 0 and below becomes NaN."""
    positive = np.where(backscatter_power > 0, backscatter_power, np.nan)
    return 10.0 * np.log10(positive)


def declared_values(
    stored: npt.NDArray[Any],
    unit: Literal["dB", "power", "reflectance"],
    scale: float,
    offset: float,
) -> FloatArray:
    """Convert a band [H, W] with a declared unit to what archives hold; NaN stays NaN.

    The result is dB, or digital numbers without the 2022 offset. Reflectance of 0 and
    below is kept as the darkest measurement, since the item has declared which value
    means no data. Power below 0 and reflectance below LEAST_REFLECTANCE become minus
    infinity: no measurement can have them.

    Args:
        stored: values of the file, NaN = no data.
        unit: unit of `stored` x `scale` + `offset`: "dB", "power" (linear backscatter)
            or "reflectance".
        scale: see `unit`.
        offset: see `unit`.
    """
    physical = stored * np.float32(scale) + np.float32(offset)
    if unit == "dB":
        return physical
    if unit == "power":
        backscatter_db = power_to_db(physical).astype(np.float32)
        backscatter_db[physical < 0] = -np.inf
        return backscatter_db
    with np.errstate(over="ignore"):
        dn = np.maximum(physical / np.float32(S2_REFLECTANCE_PER_DN), np.float32(1.0))
    dn[physical < LEAST_REFLECTANCE] = -np.inf
    return dn


def out_of_range(values: npt.NDArray[Any], sensor: Sensor) -> npt.NDArray[np.bool_]:
    """Return which archived values no measurement can have, such as inf or -1e30.

    NaN is no data and not out of range. So is 0 of Sentinel-2.
    """
    if sensor == "s1":
        return ~is_backscatter_db(values) & ~np.isnan(values)
    return (values < 0) | (values > S2_MAX_DN)


def clean_backscatter_db(pixels: npt.NDArray[Any], *, is_zero_missing: bool = True) -> FloatArray:
    """Return backscatter [C, H, W] in dB as float32, NaN where there is no measurement.

    No data are NaN, infinity, and values outside S1_VALID_RANGE_DB. If
    `is_zero_missing`, 0.0 dB in all polarizations at once is no data too: several
    downloaders fill missing pixels with 0, which would look like very bright ground.

    Args:
        pixels: backscatter [C, H, W] in dB, with NaN where the file has its own no-data
            value.
        is_zero_missing: False when the item declares its no-data value.
    """
    values = pixels.astype(np.float32)
    valid = is_backscatter_db(values)
    if is_zero_missing:
        valid &= ~(values == 0.0).all(axis=0, keepdims=True)
    values[~valid] = np.nan
    return values


def is_backscatter_db(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which values lie in S1_VALID_RANGE_DB; NaN and infinity do not."""
    low, high = S1_VALID_RANGE_DB
    # NaN and infinity compare False.
    return (values >= low) & (values <= high)


def is_dn(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which values are Sentinel-2 digital numbers that measure something.

    These are numbers above 0, up to the largest that uint16 holds. NaN, infinity and
    fill values such as -9999, -1e30 or 1e20 are none.
    """
    return (values > 0) & (values <= S2_MAX_DN)


def dn_to_reflectance(dn: npt.NDArray[Any], dn_offset: int) -> FloatArray:
    """Convert digital numbers [C, H, W] to reflectance, float32, NaN = no data.

    A measured pixel that falls to 0 or below when the offset is removed is kept as the
    darkest measurement.

    Args:
        dn: Sentinel-2 as stored, with NaN where the file has its own no-data value; 0,
            negative fill values and numbers above 65535 are no data too.
        dn_offset: what the file adds to every digital number: 0, or 1000 from
            processing baseline 04.00 on.
    """
    reflectance = dn.astype(np.float32)
    # This runs over every pixel of every scene. One plane at a time, in place, fits the
    # processor's cache.
    for values in reflectance:
        valid = is_dn(values)
        values -= dn_offset
        np.maximum(values, 1.0, out=values)
        values *= np.float32(S2_REFLECTANCE_PER_DN)
        values[~valid] = np.nan
    return reflectance


def detect_dn_offset(dn: npt.NDArray[Any], band_names: tuple[str, ...]) -> int | None:
    """Return the offset in Sentinel-2 digital numbers: 0, 1000, or None if unclear.

    With B10 (cirrus, level 1C), its median decides. Water vapour absorbs nearly all
    light there: the median is some tens without the offset and a little above 1000 with
    it, in summer, winter, desert and over snow.

    Without B10, dark pixels decide. If at least 1 of 1,000 numbers is below half the
    offset, there is no offset: with it they would be reflectances below -0.05, which
    even dark water in overcorrected level-2A scenes hardly reaches. A lack of dark
    pixels proves nothing, since haze and cloud lift whole scenes above 1000. If the two
    rules contradict each other, the offset is unclear.

    Dates and names are not used: archives hold reprocessed old scenes with the offset,
    and harmonized new scenes without it.

    Args:
        dn: digital numbers [C, ...] at full resolution, none of them mixed with no
            data; 0 is no data.
        band_names: names of the C bands.
    """
    planes = [plane[plane > 0] for plane in dn]
    # Each band counts the same, whatever its pixel size.
    shares = [
        float((plane < S2_BASELINE_0400_DN_OFFSET / 2).mean()) for plane in planes if plane.size
    ]
    if not shares:
        return None
    is_dark = float(np.mean(shares)) >= 1e-3
    if "B10" in band_names:
        cirrus = planes[band_names.index("B10")]
        if cirrus.size:
            has_offset = bool(np.median(cirrus) >= S2_BASELINE_0400_DN_OFFSET)
            return None if has_offset and is_dark else S2_BASELINE_0400_DN_OFFSET * has_offset
    return 0 if is_dark else None


def begins_at_offset(dn: npt.NDArray[Any]) -> bool:
    """Return whether the values of most bands begin about where the offset would.

    The darkest 1 of 1,000 pixels of a band is near 0 in most scenes: water is dark in
    the infrared, vegetation in the visible. With the offset, it is near 1000 in every
    band. Haze lifts only the visible bands so far; sand, snow and cloud lift the bands
    to different values.

    Args:
        dn: see `detect_dn_offset`.
    """
    floors = [float(np.quantile(plane[plane > 0], 1e-3)) for plane in dn if (plane > 0).any()]
    low, high = 0.9 * S2_BASELINE_0400_DN_OFFSET, 1.6 * S2_BASELINE_0400_DN_OFFSET
    return bool(floors) and low <= float(np.median(floors)) <= high
