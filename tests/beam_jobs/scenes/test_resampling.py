"""Resampling: aligned pixels are copied, others averaged in power; no data does not
grow.
"""

import numpy as np
import pytest

from beam_jobs.scenes import resampling
from beam_jobs.scenes.grids import Grid
from tests.data.scenes.make_rasters import UTM, XMIN, YMAX, backscatter, north_up


def grid(
    height: int,
    width: int,
    *,
    dx: float = 0.0,
    dy: float = 0.0,
    pixel_size: float = 10.0,
    crs: str = UTM,
) -> Grid:
    """A grid whose corner lies `dx` metres east and `dy` metres south of the scenes' corner."""
    return Grid(
        crs=crs,
        transform=(pixel_size, 0.0, XMIN + dx, 0.0, -pixel_size, YMAX - dy),
        height=height,
        width=width,
    )


SOURCE = (UTM, north_up())


def test_aligned_pixels_are_copied_bit_by_bit_with_nan_outside():
    values = backscatter(20, 24)
    got = resampling.backscatter_to_grid(values, SOURCE, grid(12, 30, dx=50, dy=-20))
    expected = np.full((2, 12, 30), np.nan, np.float32)
    expected[:, 2:, :19] = values[:, :10, 5:]
    assert np.array_equal(got, expected, equal_nan=True)


def test_a_grid_beside_the_source_is_all_no_data():
    values = backscatter(20, 24)
    assert np.isnan(resampling.reflectance_to_grid(values, SOURCE, grid(5, 5, dx=1000))).all()
    assert np.isnan(resampling.reflectance_to_grid(values, SOURCE, grid(5, 5, dx=1005))).all()


def test_half_a_pixel_between_two_gives_the_mean_of_their_power_not_of_their_decibels():
    values = backscatter(12, 12)
    got = resampling.backscatter_to_grid(values, SOURCE, grid(8, 8, dx=25, dy=20))
    power = 10 ** (values.astype(np.float64) / 10)
    expected = 10 * np.log10((power[:, 2:10, 2:10] + power[:, 2:10, 3:11]) / 2)
    assert got == pytest.approx(expected, abs=1e-3)
    mean_db = (values[:, 2:10, 2:10] + values[:, 2:10, 3:11]) / 2
    assert np.abs(got - mean_db).max() > 1.0


def test_half_a_pixel_both_ways_gives_the_mean_of_four_reflectances():
    values = np.random.default_rng(1).uniform(0.01, 0.9, (3, 12, 12)).astype(np.float32)
    got = resampling.reflectance_to_grid(values, SOURCE, grid(8, 8, dx=25, dy=25))
    expected = (
        values[:, 2:10, 2:10]
        + values[:, 2:10, 3:11]
        + values[:, 3:11, 2:10]
        + values[:, 3:11, 3:11]
    ) / 4
    assert got == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("ratio", [2, 6])
def test_coarse_bands_become_smooth_not_blocky_at_10_m(ratio):
    # A plane is what bilinear interpolation gives back exactly: value = 0.1 + x / 1000
    # + y / 500, metres from the corner.
    size = 10.0 * ratio
    centres = (np.arange(10) + 0.5) * size
    plane = (0.1 + centres[None, :] / 1000 + centres[:, None] / 500).astype(np.float32)[None]
    got = resampling.reflectance_to_grid(
        plane, (UTM, north_up(size)), grid(10 * ratio, 10 * ratio)
    )[0]
    fine = (np.arange(10 * ratio) + 0.5) * 10
    expected = 0.1 + fine[None, :] / 1000 + fine[:, None] / 500
    inner = np.s_[ratio:-ratio, ratio:-ratio]
    assert got[inner] == pytest.approx(expected[inner], abs=1e-4)
    assert np.isfinite(got).all()


def test_fine_bands_are_averaged_onto_coarser_pixels():
    values = np.random.default_rng(2).uniform(0, 1, (1, 40, 40)).astype(np.float32)
    got = resampling.reflectance_to_grid(values, SOURCE, grid(20, 20, pixel_size=20))
    blocks = values[0].reshape(20, 2, 20, 2).mean(axis=(1, 3))
    # GDAL widens the bilinear kernel, so a target pixel is near, not equal to, the mean
    # of its four.
    assert np.corrcoef(got[0, 2:-2, 2:-2].ravel(), blocks[2:-2, 2:-2].ravel())[0, 1] > 0.85
    assert got.std() < values.std() * 0.7


@pytest.mark.parametrize(("dx", "dy"), [(3.0, 0.0), (4.0, -4.0), (-2.0, 3.0)])
def test_no_data_neither_grows_nor_bleeds(dx, dy):
    values = backscatter(30, 30)
    values[:, 10:18, 5:9] = np.nan
    values[1, 25, 20] = np.nan
    got = resampling.backscatter_to_grid(values, SOURCE, grid(20, 20, dx=50 + dx, dy=50 + dy))
    # Less than half a pixel away, the nearest source pixel is the one at the same
    # place.
    same_place = values[:, 5:25, 5:25]
    assert np.array_equal(np.isnan(got), np.isnan(same_place))
    # Values next to no-data stay among those of their valid neighbours; a fill value
    # would leave that range.
    low, high = np.nanmin(values, axis=(1, 2)), np.nanmax(values, axis=(1, 2))
    for channel in range(2):
        valid = got[channel][np.isfinite(got[channel])]
        assert valid.min() >= low[channel] - 1e-3
        assert valid.max() <= high[channel] + 1e-3


def test_no_data_of_a_coarse_band_covers_exactly_its_pixels():
    values = np.random.default_rng(5).uniform(0.1, 0.9, (1, 20, 20)).astype(np.float32)
    values[0, 6:9, 4:7] = np.nan
    values[0, 15, 15] = np.nan
    got = resampling.reflectance_to_grid(values, (UTM, north_up(20.0)), grid(40, 40))
    assert np.array_equal(np.isnan(got[0]), np.isnan(values[0]).repeat(2, axis=0).repeat(2, axis=1))


def test_pixels_far_from_no_data_do_not_notice_it():
    values = backscatter(30, 30)
    with_hole = values.copy()
    with_hole[:, 10:14, 10:14] = np.nan
    target = grid(30, 30, dx=3, dy=3)
    whole, holed = (resampling.backscatter_to_grid(v, SOURCE, target) for v in (values, with_hole))
    far = np.ones((30, 30), bool)
    far[8:16, 8:16] = False
    assert np.array_equal(whole[:, far], holed[:, far], equal_nan=True)


def test_another_crs_puts_values_where_the_ground_is():
    import pyproj

    # A plane over UTM 33 read on a grid of UTM 34: pyproj says where each target pixel
    # lies.
    rows, cols = np.mgrid[0:200, 0:200] + 0.5
    plane = (0.2 + cols / 1000 + rows / 400).astype(np.float32)[None]
    x, y = pyproj.Transformer.from_crs(UTM, "EPSG:32634", always_xy=True).transform(
        XMIN + 1000, YMAX - 1000
    )
    target = Grid(
        crs="EPSG:32634", transform=(10.0, 0.0, x - 200, 0.0, -10.0, y + 200), height=40, width=40
    )
    got = resampling.reflectance_to_grid(plane, SOURCE, target)[0]
    tx, ty = np.meshgrid(x - 200 + (np.arange(40) + 0.5) * 10, y + 200 - (np.arange(40) + 0.5) * 10)
    sx, sy = pyproj.Transformer.from_crs("EPSG:32634", UTM, always_xy=True).transform(tx, ty)
    expected = 0.2 + (sx - XMIN) / 10 / 1000 + (YMAX - sy) / 10 / 400
    # The warper may be off by an eighth of a pixel.
    assert got == pytest.approx(expected, abs=0.125 / 400 * 1.5)


def test_ids_are_taken_from_the_nearest_pixel_and_never_mixed():
    ids = np.random.default_rng(3).choice(np.array([0, 4, 8, 255], np.uint8), (20, 20))
    got = resampling.ids_to_grid(ids, SOURCE, grid(10, 10, dx=53, dy=47), fill=77)
    assert got.dtype == np.uint8
    assert np.array_equal(got, ids[5:15, 5:15])


@pytest.mark.parametrize("dx", [-50.0, -53.0])
def test_ids_outside_the_source_are_the_fill_value(dx):
    ids = np.random.default_rng(4).integers(0, 9, (20, 20)).astype(np.uint8)
    got = resampling.ids_to_grid(ids, SOURCE, grid(8, 10, dx=dx), fill=255)
    assert (got[:, :5] == 255).all()
    assert np.array_equal(got[:, 5:], ids[:8, :5])


def test_no_source_pixels_at_all_give_the_fill_value():
    got = resampling.ids_to_grid(np.zeros((0, 0), np.uint8), SOURCE, grid(3, 4), fill=255)
    assert got.tolist() == [[255] * 4] * 3
