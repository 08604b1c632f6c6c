"""Statistics of bands and labels that can be merged in any order: what the manifest's numbers come from.

Input: patches of the train split. Output: BandStatistics. Each worker sums its own
patches, Beam merges the sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import BANDS, S1_VALID_RANGE_DB, S2_VALID_RANGE, Sensor
from beam_jobs.contracts.manifest import BandStatistics
from beam_jobs.contracts.records import FloatArray

NUM_BINS = 4400
"""Bins of the histogram over the valid range: 0.025 dB or 0.0015 reflectance wide, so percentiles are that exact."""


@dataclass(kw_only=True)
class BandSums:
    """Sums over the valid pixels of C bands.

    Attributes:
        count: int64 [C].
        total: float64 [C], sum of values.
        total_squares: float64 [C], sum of squares.
        histogram: int64 [C, NUM_BINS] over the sensor's valid range.
    """

    count: npt.NDArray[np.int64]
    total: npt.NDArray[np.float64]
    total_squares: npt.NDArray[np.float64]
    histogram: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, channels: int) -> BandSums:
        """Sums over nothing."""
        return cls(
            count=np.zeros(channels, np.int64),
            total=np.zeros(channels),
            total_squares=np.zeros(channels),
            histogram=np.zeros((channels, NUM_BINS), np.int64),
        )

    def add(self, pixels: FloatArray, sensor: Sensor) -> None:
        """Adds the valid pixels of float32 [H, W, C]."""
        low, high = _range(sensor)
        # One band after the other in memory: walking over interleaved ones costs more
        # than the arithmetic.
        for channel, plane in enumerate(
            np.ascontiguousarray(pixels.reshape(-1, pixels.shape[-1]).T)
        ):
            finite = np.isfinite(plane)
            values = plane if finite.all() else plane[finite]
            exact = values.astype(np.float64)
            self.count[channel] += values.size
            self.total[channel] += exact.sum()
            self.total_squares[channel] += np.dot(exact, exact)
            # float32 will do: which of two bins a value on their edge falls into
            # decides nothing.
            bins = ((values - np.float32(low)) * np.float32(NUM_BINS / (high - low))).astype(
                np.intp
            )
            self.histogram[channel] += np.bincount(
                np.clip(bins, 0, NUM_BINS - 1, out=bins), minlength=NUM_BINS
            )

    def negated(self) -> BandSums:
        """What takes these sums away again when it is merged with sums that hold them."""
        return BandSums(
            count=-self.count,
            total=-self.total,
            total_squares=-self.total_squares,
            histogram=-self.histogram,
        )

    def merge(self, other: BandSums) -> BandSums:
        """The sums over both."""
        return BandSums(
            count=self.count + other.count,
            total=self.total + other.total,
            total_squares=self.total_squares + other.total_squares,
            histogram=self.histogram + other.histogram,
        )


def band_statistics(
    sums: BandSums, sensor: Sensor, names: tuple[str, ...]
) -> tuple[BandStatistics, ...]:
    """Mean, standard deviation and percentiles per band, rounded to 6 digits so that summation order does not show.

    Raises:
        ValueError: a band without a single valid pixel.
    """
    low, high = _range(sensor)
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
                unit=BANDS[sensor][name].unit,
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
    """What stands for the statistics of a sensor that a version has no scene of: 0 pixels, mean and deviation 0."""
    return tuple(
        BandStatistics(
            band=name,
            unit=BANDS[sensor][name].unit,
            num_pixels=0,
            mean=0.0,
            std=0.0,
            p02=0.0,
            p50=0.0,
            p98=0.0,
        )
        for name in names
    )


def _range(sensor: Sensor) -> tuple[float, float]:
    return S1_VALID_RANGE_DB if sensor == "s1" else S2_VALID_RANGE
