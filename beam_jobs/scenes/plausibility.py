"""Plausibility: whether sampled pixels can be what the scene says they are.

Input: full-resolution planes of each band. Output: a Refusal with the value that was
found, or None. A wrong unit would otherwise end in shards without a message. The limits
pass every natural scene: open sea, desert, snow, rain forest and cities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.reasons import Refusal
from beam_jobs.contracts.records import FloatArray
from beam_jobs.scenes import radiometry

Planes = Mapping[str, Sequence[FloatArray]]
"""Band -> its windows float32 [h, w] as archives store them, NaN = no data."""

CROSS_POLARIZED: dict[str, str] = {"VH": "VV", "HV": "HH"}
"""Cross-polarized band -> the co-polarized band of the same pulse."""
NOT_NEGATIVE_DB = -1.0
"""If 95 % of all values of all bands are above this, they are not dB.

Power, amplitude and digital numbers are not negative, apart from power from which the
sensor's noise was subtracted, whose values come close to -0.01. In dB, even the
brightest cities have much cross-polarized backscatter below -5.
"""
NEGATIVE_QUANTILE = 0.05
REPEATED_SHARE = 0.02
"""A negative value that more of the pixels share to the last digit may be a fill."""
CO_RANGE_DB = (-32.0, 5.0)
"""Lowest and highest median of a co-polarized band.

Smooth sand and calm water lie at -20 to -25, cities at 0 to 5. Nothing is much darker
than the sensor's own noise at -22 to -30.

Source: ESA, Sentinel-1 SAR Technical Guide, performance: noise-equivalent sigma zero of
-22 dB or better.
"""
CROSS_RANGE_DB = (-36.0, 0.0)
"""Lowest and highest median of a cross-polarized band.

Open sea and deserts lie at about -30, cities at -10 to -3. Below the noise (see
CO_RANGE_DB), only what its subtraction left over remains.
"""
MIN_RATIO_DB = 3.75
MIN_SMOOTH_RATIO_DB = 4.5
"""Least distance of co- and cross-polarized medians well above the noise.

A cloud of randomly oriented thin dipoles, the strongest natural depolarizer, has 4.8 dB
(a power ratio of 1/3). One decibel is left for calibration, less where the speckle is
that of halved decibels too. Backscatter whose decibels were halved, as 10 log10 of an
amplitude gives, has 2.4 to 4.

Source: Freeman and Durden 1998, A three-component scattering model for polarimetric SAR
data, doi 10.1109/36.673687.
"""
DIFFERENT_DB = 1.5
"""Bands that are closer are not halved ones: they may be the same band twice."""
RATIO_FROM_DB = -15.0
"""MIN_RATIO_DB holds where the cross-polarized median is above this."""
MAX_RATIO_DB = 9.0
"""A larger distance is that of sea, or of decibels that were doubled."""
HALVED_SPECKLE_DB, DOUBLED_SPECKLE_DB = 1.7, 3.5
"""Speckle below the first is that of halved decibels, above the second of doubled ones.

Doubled decibels are those of 20 log10 of a power. Speckle of any surface is 2.2 dB at
the 4.4 looks of ground range detected images (closed form of the logarithm of a gamma
variable). Land in the open data sets has 2.0 to 2.6 dB.

Source: Sentinel-1 Product Definition, equivalent number of looks of IW GRDH 4.4.
"""
SPECKLE_LAG_PX = 3
"""Distance of the pixels whose difference measures speckle.

Neighbours are correlated: a resolution cell of 20 m has several pixels of 10 m.
"""
SWAPPED_DB = 3.0
"""If cross-polarized exceeds co-polarized backscatter by this, they are swapped."""
SWAPPED_SHARE = 0.75
"""Least share of pixels that must be so, since single pixels are by speckle."""
MAX_NEGATIVE_SHARE = 0.75
"""If more of the power of a band is negative, it may be no power.

Where nothing returns, the subtraction of the sensor's noise makes half of the pixels
negative. Of decibels nearly all are; so are those of a fill value that the item does
not declare.
"""
POSITIVE_DB_FROM = -8.0
"""Least median of what is left of decibels that were read as power, in all bands.

Decibels above 0 lie within 0.2 to 5. Ground beside a fill value is darker in one
polarization at least, but for cities.
"""
CHECKED = "terrapair:polarizations_checked"
"""Item property by which a user declares that VV and VH are not swapped."""


def unit_refusal(planes: Planes, *, is_declared: bool) -> Refusal | None:
    """Return (reason, detail) if backscatter that should be dB is not, else None.

    Args:
        planes: per polarization; dB if the scene is what it should be.
        is_declared: the item declares the unit. Then only linear values are refused:
            the item may describe an image of 8 bits that was stretched for display.
    """
    values = {name: _finite(windows) for name, windows in planes.items()}
    in_range = {name: band[radiometry.is_backscatter_db(band)] for name, band in values.items()}
    if not any(band.size for band in in_range.values()):
        return _out_of_range_refusal(values)
    if looks_linear(list(in_range.values())):
        linear = {name: band[band > NOT_NEGATIVE_DB] for name, band in values.items()}
        return "s1_not_db", (
            "backscatter must be in dB, but these are linear values "
            f"({_medians(linear)}): {_what_linear(linear)}"
        )
    if is_declared:
        return None
    medians = {name: float(np.median(band)) for name, band in in_range.items() if band.size}
    for name, median in medians.items():
        low, high = CROSS_RANGE_DB if name in CROSS_POLARIZED else CO_RANGE_DB
        if not low <= median <= high:
            return "s1_not_db", (
                f"the median of {name} in dB must lie within {low:g} to {high:g}, "
                f"got {median:.1f}: {_CURE}"
            )
    for cross, co in CROSS_POLARIZED.items():
        if cross not in medians or co not in medians:
            continue
        ratio = medians[co] - medians[cross]
        speckle = sorted((speckle_db(planes[co]), speckle_db(planes[cross])))
        least = MIN_SMOOTH_RATIO_DB if speckle[1] < HALVED_SPECKLE_DB else MIN_RATIO_DB
        seen = f"speckle {speckle[0]:.1f} dB, {_medians(in_range)}"
        if DIFFERENT_DB < ratio < least and medians[cross] > RATIO_FROM_DB:
            return "s1_not_db", (
                f"{co} must exceed {cross} by at least {least:g} dB at this brightness, "
                f"got {ratio:.1f} ({seen}), as if all decibels were halved: {_CURE}"
            )
        if ratio > MAX_RATIO_DB and speckle[0] > DOUBLED_SPECKLE_DB:
            return "s1_not_db", (
                f"{co} exceeds {cross} by {ratio:.1f} dB ({seen}), "
                f"as if all decibels were doubled: {_CURE}"
            )
    return None


def negative_power_refusal(planes: Planes) -> Refusal | None:
    """Return (reason, detail) if declared power seems to be decibels, else None.

    Args:
        planes: per polarization, in dB; power below 0 is minus infinity
            (`radiometry.declared_values`).
    """
    shares: dict[str, float] = {}
    for name, windows in planes.items():
        values = np.concatenate([window.ravel() for window in windows])
        values = values[~np.isnan(values)]
        rest = values[np.isfinite(values)]
        if rest.size and float(np.median(rest)) < POSITIVE_DB_FROM:
            return None
        shares[name] = float(np.isneginf(values).mean()) if values.size else 0.0
    name, share = max(shares.items(), key=lambda item: item[1])
    if share <= MAX_NEGATIVE_SHARE:
        return None
    return "s1_not_db", (
        f"its item declares power, but {share:.0%} of the values of {name} are negative, as "
        "decibels are: declare terrapair:unit dB in its STAC item, or nodata if they are a fill "
        "value"
    )


_CURE = (
    "convert the file to decibels (10 log10 of power), or declare terrapair:unit in its STAC item"
)


def looks_linear(bands: Sequence[npt.NDArray[Any]]) -> bool:
    """Return whether all bands hold power or amplitude, although they should be dB.

    The lowest 5 % are left out: a subtraction of noise makes some values negative. So
    is a negative value that many pixels share, since it may be a fill value that the
    file does not declare.

    Args:
        bands: per polarization, the finite values of any shape.
    """
    found = False
    for band in bands:
        values = np.ravel(band)
        values = values[np.isfinite(values)]
        if values.size:
            found = True
            if not _is_linear(values):
                return False
    return found


def _is_linear(values: npt.NDArray[Any]) -> bool:
    if np.quantile(values, NEGATIVE_QUANTILE) >= NOT_NEGATIVE_DB:
        return True
    # In dB nearly no value is so high, so nothing else has to be looked at.
    if float((values >= NOT_NEGATIVE_DB).mean()) < NEGATIVE_QUANTILE:
        return False
    unique, counts = np.unique(values[values < 0], return_counts=True)
    fill = unique[counts > REPEATED_SHARE * values.size]
    rest = values[~np.isin(values, fill)]
    return bool(fill.size and rest.size and np.quantile(rest, NEGATIVE_QUANTILE) >= NOT_NEGATIVE_DB)


def swap_refusal(planes: Planes) -> Refusal | None:
    """Return (reason, detail) if co- and cross-polarized bands are swapped, else None.

    Nature returns less energy across than along the sent polarization. Near the noise,
    both are alike.

    Args:
        planes: per polarization, in dB.
    """
    for cross, co in CROSS_POLARIZED.items():
        if cross not in planes or co not in planes:
            continue
        if [one.shape for one in planes[cross]] == [two.shape for two in planes[co]]:
            one, two = (
                np.concatenate([window.ravel() for window in planes[name]]) for name in (cross, co)
            )
            is_both = radiometry.is_backscatter_db(one) & radiometry.is_backscatter_db(two)
            excess = one[is_both] - two[is_both]
        else:
            # On two grids, pixels cannot be compared one by one.
            excess = np.array([_median_in_range(planes[cross]) - _median_in_range(planes[co])])
        excess = excess[np.isfinite(excess)]
        if not excess.size:
            continue
        median = float(np.median(excess))
        if median >= SWAPPED_DB and float((excess > 0).mean()) >= SWAPPED_SHARE:
            return "polarizations_swapped", (
                f"{cross} exceeds {co} by {median:.1f} dB, but must be weaker: the bands seem "
                f"swapped; correct their order in the STAC item, or declare {CHECKED}: true"
            )
    return None


def digital_number_refusal(
    bands: Mapping[str, npt.NDArray[Any]], dtypes: Mapping[str, np.dtype[Any]]
) -> Refusal | None:
    """Return (reason, detail) if Sentinel-2 is not in digital numbers, else None.

    Args:
        bands: per band, the values that may be digital numbers, of any shape.
        dtypes: per band, the type in the file.
    """
    values = np.concatenate([band.ravel() for band in bands.values()])
    bytes_of = sorted(name for name in bands if dtypes.get(name) in (np.uint8, np.int8))
    largest, median = float(values.max()), float(np.median(values))
    if bytes_of:
        return "s2_not_dn", (
            f"{_MUST_BE_DN}, but the pixels of {bytes_of[0]} have 8 bits "
            f"(largest {largest:.3g}): {_DECLARE}"
        )
    # The brightest 1 in 1,000: fill values that the file does not declare are larger.
    brightest = float(np.quantile(values, 0.999))
    is_fractional = float((values != np.rint(values)).mean()) > 0.5
    if brightest < MIN_DN or (median < 2.0 and is_fractional):
        return "s2_not_dn", (
            f"{_MUST_BE_DN}, but their median is {median:.3g} and the largest {largest:.3g}: "
            f"{_DECLARE}"
        )
    if largest <= np.iinfo(np.uint8).max and not {"B1", "B2"}.isdisjoint(bands):
        return "s2_not_dn", (
            f"{_MUST_BE_DN}, but all pixels lie within 0-255 "
            f"(median {median:.3g}, largest {largest:.3g}): {_DECLARE}"
        )
    return None


MIN_DN = 16.0
"""If the brightest values of a scene are below this, they are no digital numbers.

Even B10 alone, the darkest band, has some brighter pixels. The blue bands B1 and B2 are
brighter than 255 (a reflectance of 0.0255) somewhere in every scene: clear sea returns
about 0.03 there.
"""
_MUST_BE_DN = "Sentinel-2 must be digital numbers (reflectance x 10000)"
_DECLARE = "declare terrapair:unit reflectance with raster:scale and nodata in its STAC item"


def speckle_db(windows: Sequence[FloatArray]) -> float:
    """Return the typical standard deviation of pixels on one surface, dB.

    It is measured by the median difference of pixels in a row, which edges between
    surfaces hardly change. NaN where no window is wide enough.
    """
    differences = [
        np.abs(window[:, SPECKLE_LAG_PX:] - window[:, :-SPECKLE_LAG_PX]).ravel()
        for window in windows
    ]
    steps = np.concatenate(differences)
    steps = steps[np.isfinite(steps)]
    # The median of |N(0, s sqrt 2)| is 0.6745 s sqrt 2.
    return float(np.median(steps) / 0.6745 / np.sqrt(2.0)) if steps.size else float("nan")


def _median_in_range(windows: Sequence[FloatArray]) -> float:
    values = _finite(windows)
    values = values[radiometry.is_backscatter_db(values)]
    return float(np.median(values)) if values.size else float("nan")


def _finite(windows: Sequence[FloatArray]) -> npt.NDArray[Any]:
    values = np.concatenate([window.ravel() for window in windows])
    return values[np.isfinite(values)]


def _out_of_range_refusal(values: Mapping[str, npt.NDArray[Any]]) -> Refusal | None:
    """Return a Refusal if values outside the range of dB differ, as measurements do."""
    if all(np.unique(band).size < 3 for band in values.values()):
        return None
    return "s1_not_db", (
        f"backscatter must be in dB, but no value can be ({_medians(values)}): "
        f"{_what_linear(values)}"
    )


def _what_linear(values: Mapping[str, npt.NDArray[Any]]) -> str:
    middle = max(float(np.median(band)) for band in values.values() if band.size)
    if middle > 10.0 or middle < 0.0:
        return (
            "these seem to be digital numbers; calibrate them to decibels or power, "
            "or declare terrapair:unit with raster:scale, raster:offset and nodata"
        )
    return (
        "if this is linear power, declare terrapair:unit power in its STAC item; "
        "an amplitude must be squared first"
    )


def _medians(values: Mapping[str, npt.NDArray[Any]]) -> str:
    return ", ".join(
        f"median of {name} {float(np.median(band)):.3g}"
        for name, band in values.items()
        if band.size
    )
