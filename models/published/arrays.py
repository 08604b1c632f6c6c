"""Arrays: pixels in memory, checked and laid out for a published model.

Input: what a caller of `PublishedModel` holds. Output: float32 [B, H, W, C] in dB or
reflectance, NaN = no data. The rules for units are those of the readers of scenes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import S2_REFLECTANCE_PER_DN, S2_VALID_RANGE, Sensor
from beam_jobs.contracts.records import FloatArray
from beam_jobs.errors import DataError
from beam_jobs.scenes import plausibility, radiometry

_MAX_CHECKED_PX = 1 << 18
"""Most pixels of a stack whose values are checked. They lie on a regular lattice."""


def checked(pixels: npt.ArrayLike, sensor: Sensor, bands: Sequence[str]) -> FloatArray:
    """Return pixels as a float32 stack [B, H, W, C]; the argument is not changed.

    Masked pixels, and values that no measurement can have, become NaN. Reflectance of 0
    and below becomes the darkest measurement, as in scenes.

    Args:
        pixels: numbers [H, W, C] or [B, H, W, C] in dB or reflectance, NaN = no data;
            may be masked.
        sensor: whose pixels they are.
        bands: names of the C bands.

    Raises:
        DataError: another shape, no numbers, or values of another unit.
    """
    if isinstance(pixels, (list, tuple)) and any(map(np.ma.isMaskedArray, pixels)):
        # NumPy would take what is under the masks for pixels.
        pixels = np.ma.stack(pixels)
    values = np.ma.asanyarray(pixels) if np.ma.isMaskedArray(pixels) else np.asarray(pixels)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{sensor}: pixels must be numbers, got an array of {values.dtype}")
    _check_shape(values.shape, sensor, bands)
    with np.errstate(over="ignore"):
        stack = np.array(np.ma.filled(values.astype(np.float32), np.nan), np.float32)
    stack = stack if stack.ndim == 4 else stack[np.newaxis]
    step = math.ceil(math.sqrt(max(stack[..., 0].size / _MAX_CHECKED_PX, 1.0)))
    _CHECKS[sensor](stack[:, ::step, ::step], bands)
    if sensor == "s1":
        stack[~radiometry.is_backscatter_db(stack)] = np.nan
        return stack
    # NaN compares False.
    possible = (stack >= radiometry.LEAST_REFLECTANCE) & (stack <= S2_VALID_RANGE[1])
    np.maximum(stack, np.float32(S2_REFLECTANCE_PER_DN), out=stack)
    stack[~possible] = np.nan
    return stack


def _check_shape(shape: tuple[int, ...], sensor: Sensor, bands: Sequence[str]) -> None:
    """Check that the bands come last, and that there are pixels.

    Raises:
        DataError: they do not, or there are none.
    """
    count = len(bands)
    if len(shape) in (3, 4) and shape[-1] == count and all(shape):
        return
    rule = (
        f"{sensor}: pixels must be [H, W, {count}] or [B, H, W, {count}] with the bands "
        f"{', '.join(bands)}, got {list(shape)}"
    )
    if len(shape) in (3, 4) and shape[-3] == count != shape[-1]:
        raise DataError(f"{rule}: move the bands to the end by numpy.moveaxis(pixels, -3, -1)")
    raise DataError(f"{rule}: choose and order the bands")


def _check_backscatter(sample: FloatArray, bands: Sequence[str]) -> None:
    """Check that values [B, h, w, C] are decibels.

    Raises:
        DataError: they are power, amplitude or digital numbers.
    """
    finite = sample[np.isfinite(sample)]
    planes = [band[radiometry.is_backscatter_db(band)] for band in np.moveaxis(sample, -1, 0)]
    if not finite.size or (
        any(band.size for band in planes) and not plausibility.looks_linear(planes)
    ):
        return
    raise DataError(
        f"s1: backscatter of {', '.join(bands)} must be in dB, but the median is "
        f"{float(np.median(finite)):.3g}: convert power by 10 * numpy.log10(power), "
        "and set no data to NaN",
        "s1_not_db",
    )


def _check_reflectance(sample: FloatArray, bands: Sequence[str]) -> None:
    """Check that values [B, h, w, C] are reflectance of 0-1.

    Raises:
        DataError: they are digital numbers, or too small for any scene.
    """
    values = sample[np.isfinite(sample) & (sample > 0)]
    if not values.size:
        return
    rule = f"s2: reflectance of {', '.join(bands)} must be 0-1"
    if (median := float(np.median(values))) > S2_VALID_RANGE[1]:
        raise DataError(
            f"{rule}, but the median is {median:.3g}: divide digital numbers by 10000, and "
            "subtract the offset of 1000 first where the product has it",
            "s2_not_reflectance",
        )
    least = plausibility.MIN_DN * S2_REFLECTANCE_PER_DN
    if (brightest := float(values.max())) < least:
        raise DataError(
            f"{rule} and reach {least:g} somewhere, but the largest is {brightest:.3g}: divide "
            "digital numbers by 10000 only once",
            "s2_not_reflectance",
        )


_CHECKS: dict[Sensor, Any] = {"s1": _check_backscatter, "s2": _check_reflectance}


def with_absent(
    stacks: Mapping[Sensor, FloatArray], bands: Mapping[Sensor, Sequence[str]]
) -> dict[Sensor, FloatArray]:
    """Return one stack for each sensor of `bands`; that of an absent one is all NaN."""
    shape = next(iter(stacks.values())).shape[:3]
    return {
        sensor: stacks[sensor]
        if sensor in stacks
        else np.full((*shape, len(names)), np.nan, np.float32)
        for sensor, names in bands.items()
    }
