"""Registration: by how many pixels Sentinel-2 lies beside Sentinel-1 in a patch, found by phase correlation.

Input: the pixels of a patch. Output: an Offset, or None when the two images do not tell. Pure; `patches.py` calls it and
`quality.py` judges the result. Radar and optics share no brightness, only where things end: so images of gradient
magnitude are compared, not the images.

Source: phase correlation, Kuglin and Hines 1975; on gradient images across sensors, Ye et al. 2019 (doi
10.1109/TGRS.2019.2924684) and the sources there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from beam_jobs.contracts.records import FloatArray

MAX_SHIFT_PX = 8
"""Shifts are looked for below this, along each axis; the geolocation error of either sensor is about 1 px."""
MIN_SIGNIFICANCE = 6.0
"""Least height of the peak, in standard deviations of the surface around it, that counts; so that images of two different
places (simulated fields with sharp borders, 64 px, with and without margins of no data) pass in less than 2 % of the trials.
"""
MIN_SIZE_PX = 32
"""A smaller patch holds too few edges to tell a peak from chance."""
MIN_COMMON_FRACTION = 0.5
"""Least share of pixels that both sensors must have measured."""
_S1_SMOOTHING_PX = 1.5
_S2_SMOOTHING_PX = 1.0
_PEAK_WIDTH_PX = 1.0
_CONTRAST = 0.75
_SHARP_S2_BANDS = ("B2", "B3", "B4", "B8")

Plane = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Offset:
    """A shift: what Sentinel-1 shows at (row, col), Sentinel-2 shows at (row + row_shift_px, col + col_shift_px).

    Attributes:
        row_shift_px: downwards.
        col_shift_px: to the right.
        significance: height of the correlation peak in standard deviations of the surface around it.
    """

    row_shift_px: float
    col_shift_px: float
    significance: float

    @property
    def length_px(self) -> float:
        """Length of the shift."""
        return math.hypot(self.row_shift_px, self.col_shift_px)


def measure_offset(
    s1: FloatArray, s2: FloatArray, s2_bands: tuple[str, ...], min_significance: float = MIN_SIGNIFICANCE
) -> Offset | None:
    """The shift between the two images of a patch; None when no peak stands out, as over open water.

    Args:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance, float32 [H, W, C2], NaN = no data.
        s2_bands: names of the channels of `s2`; those of 10 m are used, or all when there is none.
        min_significance: a lower peak counts as none.
    """
    height, width = s1.shape[:2]
    if min(height, width) < MIN_SIZE_PX:
        return None
    # In dB, where speckle is noise that adds to the signal.
    sharp = s2[..., _sharp_channels(s2_bands)]
    common = np.isfinite(s1).all(axis=-1) & np.isfinite(sharp).all(axis=-1)
    if common.mean() < MIN_COMMON_FRACTION:
        return None
    weights = _weights(common)
    one = _spectrum(_edges(s1, common, _S1_SMOOTHING_PX), weights)
    two = _spectrum(_edges(sharp, common, _S2_SMOOTHING_PX), weights)
    cross = np.conj(one) * two
    strength = np.abs(cross)
    if not strength.max() > 0:
        return None
    phases = cross / np.maximum(strength, strength.max() * 1e-12)
    return _peak(fft.irfft2(phases * _low_pass(height, width), s=(height, width)), min_significance)


def _sharp_channels(s2_bands: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(s2_bands) if name in _SHARP_S2_BANDS] or list(range(len(s2_bands)))


def _edges(pixels: FloatArray, common: npt.NDArray[np.bool_], smoothing_px: float) -> Plane:
    """Gradient magnitude over all channels of [H, W, C] to the power of 0.75, [H, W]: where things end in any of them.

    Channels count alike whatever their contrast. A border of red and near infrared that change places, as where a field is
    bare, shows in each and not in their mean.
    """
    if not common.all():
        # The nearest valid value makes no edge of its own where data ends, as a constant would.
        nearest = ndimage.distance_transform_edt(~common, return_distances=False, return_indices=True)
        pixels = pixels[tuple(nearest)]
    total = np.zeros(common.shape, np.float32)
    for plane in np.moveaxis(pixels, -1, 0):
        down = ndimage.gaussian_filter(plane, smoothing_px, order=(1, 0))
        right = ndimage.gaussian_filter(plane, smoothing_px, order=(0, 1))
        squared = down**2 + right**2
        total += squared / max(float(squared.mean()), np.finfo(np.float32).tiny)
    # The power keeps one bright target from outweighing all field borders.
    return total ** (_CONTRAST / 2)


def _weights(common: npt.NDArray[np.bool_]) -> Plane:
    """A Hann window that also fades out towards what one of the two sensors did not measure, [H, W]."""
    window = _hann(*common.shape)
    if common.all():
        return window
    # One mask for both images, and none of its border: else that border would be found again, at no shift.
    inner = ndimage.binary_erosion(common, iterations=4, border_value=1)
    return window * ndimage.gaussian_filter(inner.astype(np.float32), 1.0)


def _spectrum(edges: Plane, weights: Plane) -> npt.NDArray[np.complexfloating]:
    """Spectrum of the weighted image; its weighted mean is 0, so that the weights themselves do not correlate."""
    total = weights.sum()
    if not total > 0:
        return np.zeros((edges.shape[0], edges.shape[1] // 2 + 1), np.complex64)
    return fft.rfft2((edges - (edges * weights).sum() / total) * weights)


@lru_cache(maxsize=8)
def _hann(height: int, width: int) -> Plane:
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)


@lru_cache(maxsize=8)
def _low_pass(height: int, width: int) -> Plane:
    """Gaussian transfer function of rfft2 that gives the peak its width: finer detail is speckle in one of the two."""
    rows, cols = fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None]
    return np.exp(-2.0 * (np.pi * _PEAK_WIDTH_PX) ** 2 * (rows**2 + cols**2)).astype(np.float32)


def _peak(surface: Plane, min_significance: float) -> Offset | None:
    """The highest point of the correlation surface [H, W] near no shift, to a part of a pixel."""
    side = 2 * MAX_SHIFT_PX + 1
    near = np.roll(surface, (MAX_SHIFT_PX, MAX_SHIFT_PX), (0, 1))[:side, :side]
    row, col = divmod(int(near.argmax()), side)
    # On the rim the true peak may lie outside.
    if not (0 < row < side - 1 and 0 < col < side - 1):
        return None
    rest = np.ones(near.shape, bool)
    rest[max(row - 3, 0) : row + 4, max(col - 3, 0) : col + 4] = False
    # Compared with other shifts of a like length: the less the images have in common, the higher all of them.
    significance = float((near[row, col] - near[rest].mean()) / near[rest].std())
    if not significance >= min_significance:
        return None
    return Offset(
        row_shift_px=row - MAX_SHIFT_PX + _vertex(near[row - 1 : row + 2, col]),
        col_shift_px=col - MAX_SHIFT_PX + _vertex(near[row, col - 1 : col + 2]),
        significance=significance,
    )


def _vertex(values: Plane) -> float:
    """Place of a parabola's top through three values at -1, 0, 1, the middle one the largest; -0.5 to 0.5."""
    before, at, after = (float(value) for value in values)
    curvature = before - 2.0 * at + after
    return 0.5 * (before - after) / curvature if curvature < 0 else 0.0
