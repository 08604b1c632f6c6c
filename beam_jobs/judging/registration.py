"""Registration: the shift between the two images of a patch, by phase correlation.

Input: the pixels of a patch. Output: an Offset, or None when no shift can be measured.
Pure functions. Radar and optical images have no brightness in common. They share the
places and directions of edges, so gradients are compared instead of pixels.

Measured on pairs of 64 px:

- Simulated pairs: 317 pairs of 24 places, with Sentinel-2 moved by a spline by 0, 0.5,
  1, 2 and 3 px. 222-229 of them are measured per shift. The median error is 0.15-0.16
  px for each shift. 3 or 4 are wrong by more than 1.5 px.
- Three TerraMind tiles, in which 17-23 of 36 overlapping patches give a shift: half of
  the shifts lie within 0.13-0.32 px of the tile's median along each axis. The medians
  are 0.9-1.8 px long.
- Open water with different waves in each image: the significance stays below 5.4 in 500
  trials. With a ship that sailed 5 px between the images, 4 of 50 pass.

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
"""Longest shift that is searched, along each axis; either sensor errs by about 1 px."""
MIN_SIGNIFICANCE = 6.5
"""Least height of a peak, in standard deviations of the surface around it.

Images of two different places passed it in 0 of 720 trials (TerraMind tiles, 64 px), 5
of 1268 (simulated scenes), 1 of 600 (fields with sharp borders) and 5 of 600 (the same
with margins of no data). At 32 px they passed in 9 of 3380 (TerraMind) and 11 of 634
trials (simulated scenes).
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
    """A shift of Sentinel-2 against Sentinel-1.

    What Sentinel-1 shows at (row, col), Sentinel-2 shows at (row + row_shift_px, col +
    col_shift_px).

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
) -> Offset | None:
    """Return the shift between the images of a patch, or None if no peak stands out.

    Open water, for example, gives None.

    Args:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data.
        s2: reflectance, float32 [H, W, C2], NaN = no data.
        s2_bands: names of the channels of `s2`; the 10 m bands are used, or all bands
            if there is none.
    """
    height, width = s1.shape[:2]
    if min(height, width) < MIN_SIZE_PX:
        return None
    # Radar stays in dB, where speckle is additive noise.
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
    return _peak(coherence * _low_pass(height, width), (height, width))


def _sharp_channels(s2_bands: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(s2_bands) if name in _SHARP_S2_BANDS] or list(
        range(len(s2_bands))
    )


def _edges(pixels: FloatArray, common: npt.NDArray[np.bool_]) -> Plane:
    """Return gradients over all channels of [H, W, C] without their sign, as [3, H, W].

    The planes are the length, and the length in two directions. Every channel has the
    same weight, whatever its contrast. A border where red and near infrared swap, as at
    a bare field, shows in each channel but not in their mean. The direction is given at
    twice its angle, so bright beside dark and dark beside bright are the same. It
    separates borders of equal strength.
    """
    if not common.all():
        # Fill gaps with the nearest valid value: a constant would add an edge where
        # data ends.
        nearest = ndimage.distance_transform_edt(
            ~common, return_distances=False, return_indices=True
        )
        pixels = pixels[tuple(nearest)]
    smooth = ndimage.gaussian_filter(
        np.moveaxis(pixels, -1, 0), (0, _SMOOTHING_PX, _SMOOTHING_PX), truncate=3.0
    )
    down, right = np.gradient(smooth, axis=(1, 2))
    # einsum needs no stack of products; at 256 px most of the time is spent here.
    tiny = np.finfo(np.float32).tiny
    scale = 1.0 / np.maximum(
        np.einsum("chw,chw->c", down, down) + np.einsum("chw,chw->c", right, right), tiny
    )
    steep = np.einsum("c,chw,chw->hw", scale, down, down)
    level = np.einsum("c,chw,chw->hw", scale, right, right)
    slanted = np.einsum("c,chw,chw->hw", scale, down, right)
    squared = np.stack([steep + level, level - steep, 2.0 * slanted])
    length = np.sqrt(squared[0])
    # Limit the strength, so that one bright target, such as a moving ship, does not
    # outweigh all field borders.
    length = np.minimum(length, np.quantile(length[common], _LIMIT_QUANTILE))
    return squared * (length / np.maximum(squared[0], tiny))


def _weights(common: npt.NDArray[np.bool_]) -> Plane:
    """Return a Hann window [H, W] that also fades towards pixels without data."""
    window = _hann(*common.shape)
    if common.all():
        return window
    # Erode the common mask: its border is the same in both images and would correlate
    # at no shift.
    inner = ndimage.binary_erosion(common, iterations=4, border_value=1)
    return window * ndimage.gaussian_filter(inner.astype(np.float32), 1.0)


def _spectrum(edges: Plane, weights: Plane) -> npt.NDArray[np.complexfloating]:
    """Return the spectra of weighted planes whose weighted mean is 0.

    With a mean of 0, the weights themselves do not correlate.
    """
    total = weights.sum()
    if not total > 0:
        return np.zeros((*edges.shape[:2], edges.shape[2] // 2 + 1), np.complex64)
    return fft.rfft2((edges - (edges * weights).sum(axis=(1, 2), keepdims=True) / total) * weights)


def _mean_power(spectra: npt.NDArray[np.complexfloating]) -> Plane:
    """Return the power of spectra [K, H, W], averaged over neighbouring frequencies.

    The average turns the quotient into a coherence: frequencies that only one sensor
    shows have little weight. Without it, each frequency would have length 1.
    """
    power = (spectra.real**2 + spectra.imag**2).sum(axis=0)
    # Rows of a spectrum are periodic; columns of rfft2 are half of a symmetric
    # spectrum.
    return ndimage.uniform_filter(power, _SPECTRUM_WINDOW, mode=("wrap", "mirror"))


@lru_cache(maxsize=8)
def _hann(height: int, width: int) -> Plane:
    return np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)


@lru_cache(maxsize=8)
def _low_pass(height: int, width: int) -> Plane:
    """Return the Gaussian transfer function that gives the correlation peak its width.

    Finer detail is speckle in one of the two images.
    """
    rows, cols = fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None]
    return np.exp(-2.0 * (np.pi * _PEAK_WIDTH_PX) ** 2 * (rows**2 + cols**2)).astype(np.float32)


def _peak(coherence: npt.NDArray[np.complexfloating], shape: tuple[int, int]) -> Offset | None:
    """Return the highest point of the correlation surface near no shift, or None.

    Args:
        coherence: spectrum of the surface [H, W], as rfft2 returns it.
        shape: H and W of the surface.
    """
    side = 2 * MAX_SHIFT_PX + 1
    near = np.roll(fft.irfft2(coherence, s=shape), (MAX_SHIFT_PX, MAX_SHIFT_PX), (0, 1))[
        :side, :side
    ]
    row, col = divmod(int(near.argmax()), side)
    # A peak at the rim may have its true top outside of the search range.
    if not (0 < row < side - 1 and 0 < col < side - 1):
        return None
    rest = np.ones(near.shape, bool)
    rest[max(row - 3, 0) : row + 4, max(col - 3, 0) : col + 4] = False
    # Compare with other shifts of similar length: the less the images have in common,
    # the higher are all values.
    significance = float((near[row, col] - near[rest].mean()) / near[rest].std())
    if not significance >= MIN_SIGNIFICANCE:
        return None
    row_shift, col_shift = _refine(coherence, shape, row - MAX_SHIFT_PX, col - MAX_SHIFT_PX)
    return Offset(row_shift_px=row_shift, col_shift_px=col_shift, significance=significance)


def _refine(
    coherence: npt.NDArray[np.complexfloating], shape: tuple[int, int], row: int, col: int
) -> tuple[float, float]:
    """Return the top of the surface within 1 px of (row, col).

    The surface's Fourier series is evaluated on a grid of 1/8 px; a parabola then
    refines the top. A parabola through whole pixels is pulled towards them, since the
    peak is too narrow.
    """
    rows, cols = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    # rfft2 omits the mirror image of every column except those of frequency 0 and one
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
    """Return the place of a parabola's top through three values at -1, 0, 1.

    The result lies within -0.5 to 0.5.
    """
    before, at, after = (float(value) for value in values)
    curvature = before - 2.0 * at + after
    return min(max(0.5 * (before - after) / curvature, -0.5), 0.5) if curvature < 0 else 0.0
