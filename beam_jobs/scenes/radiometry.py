"""Radiometry: stored pixels -> physical values with NaN as no data; dB <-> power; the 2022 Sentinel-2 offset.

Pure NumPy. `readers.py` calls it between reading and resampling, because resampling
must see power, not dB, and must never mix no-data into its neighbours.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import (
    S1_VALID_RANGE_DB,
    S2_BASELINE_0400_DN_OFFSET,
    S2_REFLECTANCE_PER_DN,
)

FloatArray = npt.NDArray[np.float32]


def db_to_power(backscatter_db: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Backscatter in dB -> linear power, 10^(dB/10); NaN stays NaN."""
    return np.power(10.0, backscatter_db / 10.0)


def power_to_db(backscatter_power: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Linear power -> dB; power that is not above 0 has no dB value and becomes NaN."""
    positive = np.where(backscatter_power > 0, backscatter_power, np.nan)
    return 10.0 * np.log10(positive)


def declared_values(
    stored: npt.NDArray[Any],
    unit: Literal["dB", "power", "reflectance"],
    scale: float,
    offset: float,
) -> FloatArray:
    """A band in units of its own, [H, W] -> what archives hold: dB, or digital numbers without offset; NaN stays NaN.

    Args:
        stored: values of the file, NaN = no data.
        unit: of `stored` x `scale` + `offset`: "dB", "power" (linear backscatter) or
            "reflectance".
        scale: see `unit`.
        offset: see `unit`.

    Reflectance of 0 and below is a measurement here, the darkest one: what is no data
    has been said.
    """
    physical = stored * np.float32(scale) + np.float32(offset)
    if unit == "power":
        return power_to_db(physical).astype(np.float32)
    return (
        np.maximum(physical / np.float32(S2_REFLECTANCE_PER_DN), 1.0)
        if unit == "reflectance"
        else physical
    )


def clean_backscatter_db(
    pixels: npt.NDArray[Any], nodata: float | None, is_zero_missing: bool = True
) -> FloatArray:
    """Backscatter as stored, [C, H, W] dB -> float32 [C, H, W] with NaN where there is no measurement.

    No data is: NaN and infinity, the file's own no-data value, values outside
    S1_VALID_RANGE_DB, and, unless no data was declared, 0.0 dB in every polarization at
    once: several downloaders fill missing pixels with 0, which would read as very
    bright ground.
    """
    values = pixels.astype(np.float32)
    low, high = S1_VALID_RANGE_DB
    # NaN and infinity lie in no range.
    valid = (values >= low) & (values <= high)
    if nodata is not None and np.isfinite(nodata):
        valid &= values != np.float32(nodata)
    if is_zero_missing:
        valid &= ~(values == 0.0).all(axis=0, keepdims=True)
    values[~valid] = np.nan
    return values


def looks_like_power(backscatter: FloatArray) -> bool:
    """Whether float32 [C, H, W], said to be dB, is linear power: no valid value is below 0.

    Land and water lie at about -30 to 0 dB, so a scene in dB always has negative
    values, while power never has.
    """
    valid = backscatter[np.isfinite(backscatter)]
    return valid.size > 0 and bool((valid >= 0).all())


def dn_to_reflectance(dn: npt.NDArray[Any], nodata: float | None, dn_offset: int) -> FloatArray:
    """Sentinel-2 digital numbers [C, H, W] -> reflectance float32 [C, H, W], NaN = no data.

    Args:
        dn: as stored; 0 and negative fill values are no data.
        nodata: the file's own no-data value, if it declares one.
        dn_offset: what the file adds to every digital number: 0, or 1000 from
            processing baseline 04.00 on.

    A measured pixel that falls to 0 or below once the offset is taken away stays a
    measurement: the darkest one.
    """
    reflectance = dn.astype(np.float32)
    # In place and plane by plane, which stays in the processor's cache: this runs over
    # every pixel of every scene.
    for values in reflectance:
        valid = np.isfinite(values) & (values > 0)
        if nodata is not None and np.isfinite(nodata):
            valid &= values != np.float32(nodata)
        values -= dn_offset
        np.maximum(values, 1.0, out=values)
        values *= np.float32(S2_REFLECTANCE_PER_DN)
        values[~valid] = np.nan
    return reflectance


def detect_dn_offset(dn: npt.NDArray[Any], band_names: tuple[str, ...]) -> int | None:
    """The offset that Sentinel-2 digital numbers [C, H, W] carry: 0 or 1000; None when the pixels cannot tell.

    With B10 (cirrus, level 1C): water vapour absorbs nearly all light there, so without
    the offset its median is some tens, with it a little above 1000, in summer, winter,
    desert and over snow. Dates and names are not asked: archives hold reprocessed old
    scenes with the offset and harmonized new ones without. Without B10: numbers below
    half the offset (in at least 1 of 1,000 pixels) tell that there is none, since with
    it they would be reflectances below -0.05, which even dark water in overcorrected
    level-2A scenes hardly reaches. The reverse does not hold: haze and cloud lift whole
    scenes above 1000, so nothing is guessed from a lack of dark pixels.
    """
    valid = dn[dn > 0]
    if valid.size == 0:
        return None
    if "B10" in band_names:
        cirrus = dn[band_names.index("B10")]
        cirrus = cirrus[cirrus > 0]
        if cirrus.size:
            return (
                S2_BASELINE_0400_DN_OFFSET if np.median(cirrus) >= S2_BASELINE_0400_DN_OFFSET else 0
            )
    return 0 if (valid < S2_BASELINE_0400_DN_OFFSET / 2).mean() >= 1e-3 else None
