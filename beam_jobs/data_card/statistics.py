"""Statistics of bands: the numbers in the manifest from which pixels are normalized.

Input: patches of the train split. Output: BandStatistics. Each worker sums up its own
patches, and Beam merges the sums in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import PIXEL_FORMATS, Sensor
from beam_jobs.contracts.manifest import BandStatistics
from beam_jobs.contracts.records import FloatArray

NUM_BINS = 4400
"""Number of histogram bins over the valid range of a sensor.

A bin is 0.025 dB or 0.0015 reflectance wide, which is the precision of the percentiles.
"""


@dataclass(kw_only=True)
class BandSums:
    """Sums over the valid pixels of C bands.

    Attributes:
        count: int64 [C], number of valid pixels.
        total: float64 [C], sum of the values.
        total_squares: float64 [C], sum of the squared values.
        histogram: int64 [C, NUM_BINS] over the sensor's valid range.
    """

    count: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    total_squares: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, channels: int) -> BandSums:
        """Return the sums over no pixels."""
        return cls(
            count=np.zeros(channels, np.int64),
            total=np.zeros(channels),
            total_squares=np.zeros(channels),
            histogram=np.zeros((channels, NUM_BINS), np.int64),
        )

    def add(self, pixels: FloatArray, sensor: Sensor) -> None:
        """Add the valid pixels of float32 [H, W, C], physical units; NaN = no data."""
        low, high = PIXEL_FORMATS[sensor].valid_range
        # Each band is made contiguous in memory: access to interleaved bands takes
        # longer than the arithmetic.
        for channel, plane in enumerate(
            np.ascontiguousarray(pixels.reshape(-1, pixels.shape[-1]).T)
        ):
            finite = np.isfinite(plane)
            values = plane if finite.all() else plane[finite]
            exact = values.astype(np.float64)
            self.count[channel] += values.size
            self.total[channel] += exact.sum()
            self.total_squares[channel] += np.dot(exact, exact)
            # float32 is exact enough: it does not matter into which of two bins a value
            # on their edge falls.
            bins = ((values - np.float32(low)) * np.float32(NUM_BINS / (high - low))).astype(
                np.intp
            )
            self.histogram[channel] += np.bincount(
                np.clip(bins, 0, NUM_BINS - 1, out=bins), minlength=NUM_BINS
            )

    def negated(self) -> BandSums:
        """Return sums that subtract these when they are merged with others."""
        return BandSums(
            count=-self.count,
            total=-self.total,
            total_squares=-self.total_squares,
            histogram=-self.histogram,
        )

    def merge(self, other: BandSums) -> BandSums:
        """Return the sums over both."""
        return BandSums(
            count=self.count + other.count,
            total=self.total + other.total,
            total_squares=self.total_squares + other.total_squares,
            histogram=self.histogram + other.histogram,
        )


def band_statistics(
    sums: BandSums, sensor: Sensor, names: tuple[str, ...]
) -> tuple[BandStatistics, ...]:
    """Return mean, standard deviation and percentiles of each band.

    The numbers are rounded, so they do not depend on the order of summation.

    Args:
        sums: sums over the train split.
        sensor: the sensor of the bands.
        names: names of the C bands, in the order of the channels.

    Raises:
        ValueError: a band has no valid pixel.
    """
    low, high = PIXEL_FORMATS[sensor].valid_range
    result = []
    for channel, name in enumerate(names):
        count = int(sums.count[channel])
        if count == 0:
            raise ValueError(f"band {name} has no valid pixel in the train split")
        mean = float(sums.total[channel] / count)
        variance = max(float(sums.total_squares[channel] / count) - mean**2, 0.0)
        cumulative = np.cumsum(sums.histogram[channel]) / count
        p02, p50, p98 = (
            low + (int(np.searchsorted(cumulative, quantile)) + 0.5) * (high - low) / NUM_BINS
            for quantile in (0.02, 0.5, 0.98)
        )
        result.append(
            BandStatistics(
                band=name,
                unit=PIXEL_FORMATS[sensor].unit,
                num_pixels=count,
                mean=round(mean, 6),
                std=round(variance**0.5, 6),
                p02=round(p02, 4),
                p50=round(p50, 4),
                p98=round(p98, 4),
            )
        )
    return tuple(result)


def of_nothing(sensor: Sensor, names: tuple[str, ...]) -> tuple[BandStatistics, ...]:
    """Return the statistics of a sensor without any scene: all numbers are 0."""
    return tuple(
        BandStatistics(
            band=name,
            unit=PIXEL_FORMATS[sensor].unit,
            num_pixels=0,
            mean=0.0,
            std=0.0,
            p02=0.0,
            p50=0.0,
            p98=0.0,
        )
        for name in names
    )
