"""Registration: by how many pixels Sentinel-2 lies beside Sentinel-1 in a patch, found by phase correlation.

Input: the pixels of a patch. Output: an Offset, or None when the two images do not
tell. Pure; `patches.py` calls it and `quality.py` judges the result. Radar and optics
share no brightness, only where things end and in which direction: so gradients are
compared, not the images.

Measured on pairs of 64 px: simulated ones (317 of 24 places, Sentinel-2 moved by a
spline, 222-229 of them measured per shift) are found with a median error of 0.15-0.16
px for each of 0, 0.5, 1, 2 and 3 px, 3 or 4 of them by more than 1.5 px beside the
truth. In the three TerraMind tiles that gave 17-23 of 36 overlapping patches a shift,
half of the shifts lie within 0.13-0.32 px of the tile's median along each axis; the
medians are 0.9-1.8 px long. Open water with waves of its own in each sensor stays below
a significance of 5.4 in 500 trials; a ship that sailed 5 px between two images of such
water passes in 4 of 50.

Source: phase correlation, Kuglin and Hines 1975; with mean spectra as weights (the
smoothed coherence transform), Knapp and Carter 1976, doi 10.1109/TASSP.1976.1162830; on
oriented gradients across sensors, Ye et al. 2019, doi 10.1109/TGRS.2019.2924684;
gradient tensor over channels, Di Zenzo 1986, "A note on the gradient of a multi-image";
part of a pixel by matrix DFT, Guizar-Sicairos et al. 2008, doi 10.1364/OL.33.000156.
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
MIN_SIGNIFICANCE = 6.5
"""Least height of the peak, in standard deviations of the surface around it, that counts. Images of two different places
passed it in 0 of 720 trials (TerraMind tiles, 64 px), 5 of 1268 (simulated scenes), 1
of 600 (fields with sharp borders) and 5 of 600 (the same with margins of no data); at
32 px in 9 of 3380 (TerraMind) and 11 of 634 (simulated scenes).
"""
MIN_SIZE_PX = 32
"""A smaller patch holds too few edges to tell a peak from chance."""
MIN_COMMON_FRACTION = 0.5
"""Least share of pixels that both sensors must have measured."""
_SMOOTHING_PX = 0.8
_PEAK_WIDTH_PX = 0.8
_LIMIT_QUANTILE = 0.95
_SPECTRUM_WINDOW = 5
_STEPS_PX = np.linspace(-1.0, 1.0, 17)
_SHARP_S2_BANDS = ("B2", "B3", "B4", "B8")

Plane = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Offset:
    """A shift: what Sentinel-1 shows at (row, col), Sentinel-2 shows at (row + row_shift_px, col + col_shift_px).

    Attributes:
        row_shift_px: downwards.
        col_shift_px: to the right.
        significance: height of the correlation peak in standard deviations of the
            surface around it.
    """

    row_shift_px: float
    col_shift_px: float
    significance: float

    @property
    def length_px(self) -> float:
        """Length of the shift."""
        return math.hypot(self.row_shift_px, self.col_shift_px)


def measure_offset(
    s1: FloatArray,
    s2: FloatArray,
    s2_bands: tuple[str, ...],
    min_significance: float = MIN_SIGNIFICANCE,
) -> Offset | None:
    """The shift between the two images of a patch; None when no peak stands out, as over open water.

    Args:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance, float32 [H, W, C2], NaN = no data.
        s2_bands: names of the channels of `s2`; those of 10 m are used, or all when
            there is none.
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
    one = _spectrum(_edges(s1, common), weights)
    two = _spectrum(_edges(sharp, common), weights)
    cross = (np.conj(one) * two).sum(axis=0)
    strength = np.sqrt(_mean_power(one) * _mean_power(two))
    if not strength.max() > 0:
        return None
    coherence = cross / np.maximum(strength, strength.max() * 1e-9)
    return _peak(coherence * _low_pass(height, width), (height, width), min_significance)


def _sharp_channels(s2_bands: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(s2_bands) if name in _SHARP_S2_BANDS] or list(
        range(len(s2_bands))
    )


def _edges(pixels: FloatArray, common: npt.NDArray[np.bool_]) -> Plane:
    """Gradients over all channels of [H, W, C] whatever their sign, [3, H, W]: length, and length in two directions.

    Channels count alike whatever their contrast. A border of red and near infrared that
    change places, as where a field is bare, shows in each and not in their mean. The
    direction, at twice its angle, is the same for bright beside dark and dark beside
    bright: it tells a border from another border of a like strength.
    """
    if not common.all():
        # The nearest valid value makes no edge of its own where data ends, as a
        # constant would.
        nearest = ndimage.distance_transform_edt(
            ~common, return_distances=False, return_indices=True
        )
        pixels = pixels[tuple(nearest)]
    smooth = ndimage.gaussian_filter(
        np.moveaxis(pixels, -1, 0), (0, _SMOOTHING_PX, _SMOOTHING_PX), truncate=3.0
    )
    down, right = np.gradient(smooth, axis=(1, 2))
    # Sums over channels without a stack of products: with 256 px this is where the time
    # goes.
    tiny = np.finfo(np.float32).tiny
    scale = 1.0 / np.maximum(
        np.einsum("chw,chw->c", down, down) + np.einsum("chw,chw->c", right, right), tiny
    )
    steep = np.einsum("c,chw,chw->hw", scale, down, down)
    level = np.einsum("c,chw,chw->hw", scale, right, right)
    slanted = np.einsum("c,chw,chw->hw", scale, down, right)
    squared = np.stack([steep + level, level - steep, 2.0 * slanted])
    length = np.sqrt(squared[0])
    # A limit, so that one bright target, a ship that sails, does not outweigh all field
    # borders.
    length = np.minimum(length, np.quantile(length[common], _LIMIT_QUANTILE))
    return squared * (length / np.maximum(squared[0], tiny))


def _weights(common: npt.NDArray[np.bool_]) -> Plane:
    """A Hann window that also fades out towards what one of the two sensors did not measure, [H, W]."""
    window = _hann(*common.shape)
    if common.all():
        return window
    # One mask for both images, and none of its border: else that border would be found
    # again, at no shift.
    inner = ndimage.binary_erosion(common, iterations=4, border_value=1)
    return window * ndimage.gaussian_filter(inner.astype(np.float32), 1.0)


def _spectrum(edges: Plane, weights: Plane) -> npt.NDArray[np.complexfloating]:
    """Spectra of weighted planes; their weighted means are 0, so that the weights themselves do not correlate."""
    total = weights.sum()
    if not total > 0:
        return np.zeros((*edges.shape[:2], edges.shape[2] // 2 + 1), np.complex64)
    return fft.rfft2((edges - (edges * weights).sum(axis=(1, 2), keepdims=True) / total) * weights)


def _mean_power(spectra: npt.NDArray[np.complexfloating]) -> Plane:
    """Power of spectra [K, H, W] over neighbouring frequencies.

    A mean makes the quotient a coherence: frequencies that only one sensor holds count
    little. A phase alone has length 1.
    """
    power = (spectra.real**2 + spectra.imag**2).sum(axis=0)
    # Rows of a spectrum are periodic; columns of rfft2 are the half of a symmetric one.
    return ndimage.uniform_filter(power, _SPECTRUM_WINDOW, mode=("wrap", "mirror"))


@lru_cache(maxsize=8)
def _hann(height: int, width: int) -> Plane:
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)


@lru_cache(maxsize=8)
def _low_pass(height: int, width: int) -> Plane:
    """Gaussian transfer function of rfft2 that gives the peak its width: finer detail is speckle in one of the two."""
    rows, cols = fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None]
    return np.exp(-2.0 * (np.pi * _PEAK_WIDTH_PX) ** 2 * (rows**2 + cols**2)).astype(np.float32)


def _peak(
    coherence: npt.NDArray[np.complexfloating], shape: tuple[int, int], min_significance: float
) -> Offset | None:
    """The highest point near no shift of the surface [H, W] that has the spectrum `coherence`, to a part of a pixel."""
    side = 2 * MAX_SHIFT_PX + 1
    near = np.roll(fft.irfft2(coherence, s=shape), (MAX_SHIFT_PX, MAX_SHIFT_PX), (0, 1))[
        :side, :side
    ]
    row, col = divmod(int(near.argmax()), side)
    # On the rim the true peak may lie outside.
    if not (0 < row < side - 1 and 0 < col < side - 1):
        return None
    rest = np.ones(near.shape, bool)
    rest[max(row - 3, 0) : row + 4, max(col - 3, 0) : col + 4] = False
    # Compared with other shifts of a like length: the less the images have in common,
    # the higher all of them.
    significance = float((near[row, col] - near[rest].mean()) / near[rest].std())
    if not significance >= min_significance:
        return None
    row_shift, col_shift = _refine(coherence, shape, row - MAX_SHIFT_PX, col - MAX_SHIFT_PX)
    return Offset(row_shift_px=row_shift, col_shift_px=col_shift, significance=significance)


def _refine(
    coherence: npt.NDArray[np.complexfloating], shape: tuple[int, int], row: int, col: int
) -> tuple[float, float]:
    """Top of the surface within 1 px of (row, col): its Fourier series on a grid of 1/8 px, then a parabola.

    A parabola through whole pixels is pulled towards them: the peak is too narrow for
    it.
    """
    rows, cols = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    # rfft2 leaves out the mirror image of every column but those of frequency 0 and one
    # half.
    twice = np.where((cols == 0.0) | (cols == 0.5), 1.0, 2.0)[:, None]
    down = np.exp(2j * np.pi * np.outer(row + _STEPS_PX, rows))
    across = twice * np.exp(2j * np.pi * np.outer(cols, col + _STEPS_PX))
    fine = (down @ coherence @ across).real
    last = len(_STEPS_PX) - 2
    i, j = (min(max(int(k), 1), last) for k in np.unravel_index(fine.argmax(), fine.shape))
    step = float(_STEPS_PX[1] - _STEPS_PX[0])
    return (
        row + float(_STEPS_PX[i]) + step * _vertex(fine[i - 1 : i + 2, j]),
        col + float(_STEPS_PX[j]) + step * _vertex(fine[i, j - 1 : j + 2]),
    )


def _vertex(values: Plane) -> float:
    """Place of a parabola's top through three values at -1, 0, 1, no nearer to a neighbour than to the middle one."""
    before, at, after = (float(value) for value in values)
    curvature = before - 2.0 * at + after
    return min(max(0.5 * (before - after) / curvature, -0.5), 0.5) if curvature < 0 else 0.0
