"""Statistics: the same numbers in any order and partition, equal to NumPy's, NaN left out."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.data_card.statistics import BandSums, band_statistics

BANDS = ("VV", "VH")


def patches(count: int = 7, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        values = rng.normal([-10.0, -17.0], [3.0, 4.0], (16, 12, 2)).astype(np.float32)
        values[rng.random((16, 12)) < 0.05 * index] = np.nan
        values[0, :, 1] = np.nan
        made.append(values)
    return made


def sums_of(pixels: list[np.ndarray], sensor="s1") -> BandSums:
    sums = BandSums.zeros(pixels[0].shape[-1])
    for values in pixels:
        sums.add(values, sensor)
    return sums


def test_mean_and_deviation_are_those_of_the_valid_pixels():
    for channel, band in enumerate(band_statistics(sums_of(patches()), "s1", BANDS)):
        values = np.concatenate([p[..., channel].ravel() for p in patches()]).astype(np.float64)
        values = values[np.isfinite(values)]
        assert (band.band, band.unit, band.num_pixels) == (BANDS[channel], "dB", values.size)
        assert band.mean == pytest.approx(values.mean(), abs=1e-6)
        assert band.std == pytest.approx(values.std(), abs=1e-6)


def test_percentiles_are_exact_to_a_bin():
    for channel, band in enumerate(band_statistics(sums_of(patches(40)), "s1", BANDS)):
        values = np.concatenate([p[..., channel].ravel() for p in patches(40)])
        values = values[np.isfinite(values)]
        expected = np.percentile(values, [2, 50, 98], method="inverted_cdf")
        assert [band.p02, band.p50, band.p98] == pytest.approx(expected, abs=0.0126)


def test_percentiles_of_reflectance_are_exact_to_a_bin():
    values = np.random.default_rng(1).gamma(2.0, 0.06, (80, 80, 1)).astype(np.float32)
    (band,) = band_statistics(sums_of([values], "s2"), "s2", ("B4",))
    expected = np.percentile(values, [2, 50, 98], method="inverted_cdf")
    assert [band.p02, band.p50, band.p98] == pytest.approx(expected, abs=0.0008)
    assert band.unit == "reflectance"


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(7)), st.lists(st.integers(1, 6), max_size=4))
def test_any_order_and_partition_gives_the_result_of_one_pass(order, cuts):
    pixels = patches()
    edges = [0, *sorted(set(cuts)), 7]
    parts = [sums_of([pixels[i] for i in order[a:b]]) for a, b in itertools.pairwise(edges)]
    merged, single = functools.reduce(BandSums.merge, parts), sums_of(pixels)
    assert np.array_equal(merged.count, single.count)
    assert np.array_equal(merged.histogram, single.histogram)
    assert merged.total == pytest.approx(single.total, rel=1e-12)
    assert merged.total_squares == pytest.approx(single.total_squares, rel=1e-12)
    assert band_statistics(merged, "s1", BANDS) == band_statistics(single, "s1", BANDS)


def test_merging_changes_neither_side():
    one, two = sums_of(patches(3, seed=1)), sums_of(patches(2, seed=2))
    before = one.count.copy(), two.histogram.copy()
    one.merge(two)
    assert np.array_equal(one.count, before[0])
    assert np.array_equal(two.histogram, before[1])


def test_nothing_merges_to_zeros():
    assert BandSums.zeros(3).count.tolist() == [0, 0, 0]


def test_a_band_without_valid_pixels_is_named():
    pixels = patches(1)
    pixels[0][..., 1] = np.nan
    with pytest.raises(ValueError, match="band VH has no valid pixel in the train split"):
        band_statistics(sums_of(pixels), "s1", BANDS)


def test_values_at_the_ends_of_the_range_are_counted():
    pixels = np.array([[[-70.0], [40.0], [np.nan], [-15.0]]], np.float32)
    sums = sums_of([pixels])
    assert sums.count.tolist() == [3]
    assert sums.histogram.sum() == 3
    assert sums.histogram[0, 0] == sums.histogram[0, -1] == 1
