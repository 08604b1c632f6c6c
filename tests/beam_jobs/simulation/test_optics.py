"""Optics: spectra, season, air, clouds and shadows, stored numbers."""

import numpy as np
import pytest

from beam_jobs.contracts.bands import S2_L1C_BANDS
from beam_jobs.simulation.clouds import Clouds, draw_clouds
from beam_jobs.simulation.landscape import BARE, CROPS, GRASS, TREES, WATER, make_landscape
from beam_jobs.simulation.optics import (
    Atmosphere,
    coarsen,
    draw_atmosphere,
    observe,
    surface_reflectance,
    to_dn,
)

B = {name: i for i, name in enumerate(S2_L1C_BANDS)}
STILL_AIR = Atmosphere(haze_reflectance=0.0, mud_fraction=0.0, gain=1.0, cirrus_reflectance=0.002)


def no_clouds(size_px: int) -> Clouds:
    zeros = np.zeros((size_px, size_px), np.float32)
    return Clouds(opacity=zeros, shadow=zeros, brightness=1.0)


def test_classes_have_the_spectral_signs_that_map_makers_use() -> None:
    landscape = make_landscape(0, 0, 128)
    label = landscape.label(0.0)
    cover = np.ones((128, 128), np.float32)
    ground = surface_reflectance(
        landscape, label, crop_cover=cover, greenness=1.0, mud_fraction=0.5
    )
    mean = {c: ground[:, label == c].mean(axis=1) for c in (WATER, TREES, GRASS, CROPS, BARE)}
    ndvi = {c: (m[B["B8"]] - m[B["B4"]]) / (m[B["B8"]] + m[B["B4"]]) for c, m in mean.items()}
    assert ndvi[WATER] < 0 < ndvi[BARE] < 0.3 < ndvi[GRASS] < ndvi[CROPS]
    assert ndvi[TREES] > 0.7
    ndwi = (mean[WATER][B["B3"]] - mean[WATER][B["B8"]]) / (
        mean[WATER][B["B3"]] + mean[WATER][B["B8"]]
    )
    assert ndwi > 0.2
    assert mean[BARE].argmax() == B["B11"]


def test_winter_and_harvest_take_the_green_away() -> None:
    landscape = make_landscape(0, 0, 128)
    label = landscape.label(0.0)
    closed, bare = np.ones((128, 128), np.float32), np.zeros((128, 128), np.float32)
    summer = surface_reflectance(
        landscape, label, crop_cover=closed, greenness=1.0, mud_fraction=0.0
    )
    winter = surface_reflectance(
        landscape, label, crop_cover=bare, greenness=0.25, mud_fraction=0.0
    )
    for class_id in (TREES, GRASS, CROPS):
        assert (
            summer[B["B8"], label == class_id].mean()
            > winter[B["B8"], label == class_id].mean() + 0.05
        )
    np.testing.assert_array_equal(summer[:, label == BARE], winter[:, label == BARE])


def test_haze_adds_more_in_blue_and_top_of_atmosphere_more_still() -> None:
    ground = np.full((13, 60, 60), 0.1, np.float32)
    hazy = Atmosphere(haze_reflectance=0.02, mud_fraction=0.0, gain=1.0, cirrus_reflectance=0.002)

    def means(air: Atmosphere, is_toa: bool) -> np.ndarray:
        rng = np.random.default_rng(0)
        found = observe(
            ground.copy(), air, clouds=no_clouds(60), is_top_of_atmosphere=is_toa, rng=rng
        )
        return found.mean(axis=(1, 2))

    clear, haze, toa = means(STILL_AIR, False), means(hazy, False), means(STILL_AIR, True)
    surface = [i for i in range(13) if i != B["B10"]]
    np.testing.assert_allclose(clear[surface], 0.1, atol=2e-4)
    np.testing.assert_allclose(clear[B["B10"]], 0.002, atol=1e-6)
    assert (haze - clear)[B["B2"]] == pytest.approx(0.02, abs=1e-4)
    assert (np.diff((haze - clear)[surface]) < 0).all()
    assert (toa - clear)[B["B1"]] == pytest.approx(0.075, abs=1e-4)
    # Fourth power of the wavelength: (443.9 / 664.5) ** 4.
    assert (toa - clear)[B["B4"]] == pytest.approx(0.075 * 0.1991, abs=2e-4)


def test_clouds_are_white_above_the_ground_and_shadows_dark_and_not_in_the_mask() -> None:
    opacity, shadow = np.zeros((60, 60), np.float32), np.zeros((60, 60), np.float32)
    opacity[:30, :30], shadow[30:, 30:] = 1.0, 1.0
    clouds = Clouds(opacity=opacity, shadow=shadow, brightness=1.0)
    result = observe(
        np.full((13, 60, 60), 0.1, np.float32),
        STILL_AIR,
        clouds=clouds,
        is_top_of_atmosphere=False,
        rng=np.random.default_rng(0),
    )
    assert result[B["B2"], :30, :30].mean() == pytest.approx(0.6, abs=0.01)
    assert result[B["B10"], :30, :30].mean() == pytest.approx(0.03, abs=1e-4)
    assert result[B["B4"], 30:, 30:].mean() == pytest.approx(0.035, abs=1e-3)
    assert result[B["B4"], :30, 30:].mean() == pytest.approx(0.1, abs=1e-3)
    assert clouds.mask[:30, :30].all()
    assert not clouds.mask[30:, 30:].any()


def test_drawn_clouds_cover_some_dates_only_and_shadows_fall_away_from_the_sun() -> None:
    drawn = [draw_clouds(np.random.default_rng(i), 128, 50.0) for i in range(40)]
    shares = np.array([clouds.mask.mean() for clouds in drawn])
    assert 0.2 < (shares == 0).mean() < 0.6
    assert shares.max() < 0.45
    for clouds in drawn:
        if clouds.mask.mean() > 0.05:
            assert (clouds.shadow[clouds.opacity == 1.0] == 0).all()
    cloudy = int(shares.argmax())
    south = draw_clouds(np.random.default_rng(cloudy), 128, -30.0)
    north = draw_clouds(np.random.default_rng(cloudy), 128, 30.0)
    np.testing.assert_array_equal(south.opacity, north.opacity)
    assert north.mask.any()
    rows = np.arange(128)

    def height(clouds: Clouds) -> float:
        return float((clouds.shadow.sum(axis=1) * rows).sum() / clouds.shadow.sum())

    assert height(north) < height(south)


def test_coarse_bands_are_block_means_at_any_size() -> None:
    band = np.arange(35, dtype=np.float32).reshape(5, 7)
    result = coarsen(band, 2)
    assert result.shape == (5, 7)
    np.testing.assert_allclose(result[:2, :2], band[:2, :2].mean())
    np.testing.assert_allclose(result[2:4, 4:6], band[2:4, 4:6].mean())
    # The last row and column have no partner: the edge stands in for it.
    np.testing.assert_allclose(result[4, 6], band[4, 6])
    np.testing.assert_allclose(result[4, :2], band[4, :2].mean())


def test_stored_numbers_keep_0_for_no_data() -> None:
    reflectance = np.array([[[0.0, 0.12344, 9.0]]], np.float32)
    dn = to_dn(reflectance, np.array([[True, True, True]]))
    np.testing.assert_array_equal(dn, [[[1, 1234, 65535]]])
    dn = to_dn(reflectance, np.array([[True, False, False]]))
    np.testing.assert_array_equal(dn, [[[1, 0, 0]]])


def test_atmosphere_stays_in_its_ranges() -> None:
    for i in range(50):
        air = draw_atmosphere(np.random.default_rng(i))
        assert 0.001 <= air.cirrus_reflectance <= 0.005
        assert 0 <= air.haze_reflectance < 0.1
        assert 0 <= air.mud_fraction <= 1
