"""Radar physics: units, speckle, noise floor, geometry, nuisance presets."""

import dataclasses

import numpy as np
import pytest

from beam_jobs.simulation.landscape import BARE, BUILT, CLASS_IDS, CROPS, TREES, WATER, Landscape
from beam_jobs.simulation.radar import (
    MEAN_BACKSCATTER_DB,
    NOISE_FLOOR_DB,
    NUM_LOOKS,
    Nuisance,
    add_nuisance_db,
    db_to_power,
    draw_nuisance,
    mean_backscatter_db,
    measure,
    near_range,
    power_to_db,
    speckle,
)
from beam_jobs.simulation.terrain import Terrain


def flat_landscape(size_px: int, class_id: int) -> Landscape:
    """One class on level ground without texture, so that each effect can be seen alone."""
    zeros = np.zeros((size_px, size_px), np.float32)
    return Landscape(
        land_cover=np.full((size_px, size_px), class_id, np.uint8),
        terrain=Terrain(height_m=zeros + 5, coast_distance_px=zeros + 1e6),
        parcel_phase=zeros,
        parcel_tone=zeros,
        row_wave=zeros,
        texture=zeros,
        bright_point=zeros.astype(bool),
    )


def test_db_and_power_are_inverse_and_nan_stays_nan() -> None:
    db = np.array([-30.0, -10.0, 0.0, 3.0103, np.nan], np.float32)
    power = db_to_power(db)
    np.testing.assert_allclose(power[:4], [0.001, 0.1, 1.0, 2.0], rtol=1e-5)
    assert np.isnan(power[4])
    np.testing.assert_allclose(power_to_db(power), db, atol=1e-5)


def test_speckle_has_mean_one_in_power_and_the_looks_of_iw_grdh() -> None:
    sample = speckle(np.random.default_rng(0), (400, 400))
    np.testing.assert_allclose(sample.mean(), 1.0, atol=0.01)
    looks = sample.mean() ** 2 / sample.var()
    assert 4.0 <= looks <= 5.0
    np.testing.assert_allclose(looks, NUM_LOOKS, rtol=0.03)


def test_measured_homogeneous_area_has_4_to_5_looks_and_its_mean_power_plus_noise() -> None:
    expected = np.broadcast_to(np.array([-10.0, -16.0], np.float32)[:, None, None], (2, 300, 300))
    power = db_to_power(measure(expected, np.random.default_rng(1)))
    for band, (mean_db, noise_db) in enumerate(zip((-10.0, -16.0), NOISE_FLOOR_DB, strict=True)):
        truth = 10 ** (mean_db / 10) + 10 ** (noise_db / 10)
        np.testing.assert_allclose(power[band].mean(), truth, rtol=0.01)
        assert 4.0 <= power[band].mean() ** 2 / power[band].var() <= 5.0
    # The two polarizations have speckle of their own.
    assert abs(np.corrcoef(power[0].ravel(), power[1].ravel())[0, 1]) < 0.02


def test_noise_floor_keeps_the_darkest_water_from_vanishing() -> None:
    dark = np.full((2, 200, 200), -60.0, np.float32)
    power = db_to_power(measure(dark, np.random.default_rng(2)))
    np.testing.assert_allclose(10 * np.log10(power.mean(axis=(1, 2))), NOISE_FLOOR_DB, atol=0.1)


@pytest.mark.parametrize("class_id", CLASS_IDS)
def test_flat_ground_has_the_mean_of_its_class(class_id: int) -> None:
    landscape = flat_landscape(16, class_id)
    cover = np.zeros((16, 16), np.float32)
    result = mean_backscatter_db(landscape, landscape.land_cover, cover, "ascending")
    np.testing.assert_allclose(
        result, np.array(MEAN_BACKSCATTER_DB[class_id])[:, None, None].repeat(16, 1).repeat(16, 2)
    )


def test_growing_crops_gain_more_in_vh_than_in_vv() -> None:
    landscape = flat_landscape(8, CROPS)
    bare = mean_backscatter_db(
        landscape, landscape.land_cover, np.zeros((8, 8), np.float32), "ascending"
    )
    full = mean_backscatter_db(
        landscape, landscape.land_cover, np.ones((8, 8), np.float32), "ascending"
    )
    gain = (full - bare).mean(axis=(1, 2))
    assert gain[1] > gain[0] > 1.0


def test_slopes_facing_the_sensor_are_brighter_and_the_other_pass_sees_the_opposite() -> None:
    landscape = flat_landscape(20, BARE)
    hill = np.broadcast_to(np.arange(20, dtype=np.float32) * 0.3, (20, 20))
    landscape = dataclasses.replace(
        landscape, terrain=dataclasses.replace(landscape.terrain, height_m=hill)
    )
    cover = np.zeros((20, 20), np.float32)
    east_looking = mean_backscatter_db(landscape, landscape.land_cover, cover, "ascending")[0]
    west_looking = mean_backscatter_db(landscape, landscape.land_cover, cover, "descending")[0]
    # Ground that rises 3 % towards east faces a sensor in the west.
    np.testing.assert_allclose(east_looking - MEAN_BACKSCATTER_DB[BARE][0], 0.9, atol=1e-4)
    np.testing.assert_allclose(west_looking - MEAN_BACKSCATTER_DB[BARE][0], -0.9, atol=1e-4)


def test_layover_of_a_wall_falls_towards_the_sensor_and_a_flooded_wall_is_dark() -> None:
    landscape = flat_landscape(9, BUILT)
    point = np.zeros((9, 9), bool)
    point[4, 4] = True
    landscape = dataclasses.replace(landscape, bright_point=point)
    cover = np.zeros((9, 9), np.float32)
    gains = {
        orbit: mean_backscatter_db(landscape, landscape.land_cover, cover, orbit)[0, 4]
        - MEAN_BACKSCATTER_DB[BUILT][0]
        for orbit in ("ascending", "descending")
    }
    np.testing.assert_allclose(gains["ascending"], [0, 0, 3, 6, 11, 0, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(gains["descending"], gains["ascending"][::-1], atol=1e-5)
    flooded = np.full((9, 9), WATER, np.uint8)
    np.testing.assert_allclose(
        mean_backscatter_db(landscape, flooded, cover, "ascending")[0], -20.0
    )


def test_near_range_is_west_for_ascending_and_east_for_descending() -> None:
    ascending, descending = near_range(51, "ascending"), near_range(51, "descending")
    np.testing.assert_allclose(ascending[25, [0, -1]], [0.5, -0.5], atol=0.01)
    np.testing.assert_allclose(descending[25, [0, -1]], [-0.5, 0.5], atol=0.01)


def checkered_label(size_px: int) -> np.ndarray:
    return np.where(np.indices((size_px, size_px)).sum(axis=0) % 2, TREES, WATER).astype(np.uint8)


def test_augmentable_nuisance_is_one_offset_per_polarization() -> None:
    label, zeros = checkered_label(32), np.zeros((2, 32, 32), np.float32)
    offsets = []
    for i in range(300):
        nuisance = draw_nuisance("augmentable", np.random.default_rng(i), 32)
        added = add_nuisance_db(zeros, label, nuisance, "ascending")
        assert np.ptp(added[0]) == 0
        assert np.ptp(added[1]) == 0
        offsets.append(added[:, 0, 0])
    vv, vh = np.array(offsets).T
    np.testing.assert_allclose([vv.std(), vh.std()], np.hypot(1.8, 1.0), rtol=0.12)
    np.testing.assert_allclose((vv - vh).std(), np.sqrt(2.0), rtol=0.12)


def test_private_nuisance_hides_classes_differently_in_each_scene() -> None:
    label, zeros = checkered_label(33), np.zeros((2, 33, 33), np.float32)
    between, ramps, winds = [], [], []
    for i in range(300):
        nuisance = draw_nuisance("private", np.random.default_rng(i), 33)
        calm = dataclasses.replace(nuisance, wind_streaks=None, ramp_db=0.0)
        added = add_nuisance_db(zeros, label, calm, "ascending")
        between.append(added[0][label == TREES].mean() - added[0][label == WATER].mean())
        ramps.append(nuisance.ramp_db)
        wind = add_nuisance_db(zeros, label, nuisance, "ascending")
        wind -= add_nuisance_db(
            zeros, label, dataclasses.replace(nuisance, wind_streaks=None), "ascending"
        )
        assert np.abs(wind[:, label == TREES]).max() == 0
        np.testing.assert_allclose(wind[1], wind[0] / 2, atol=1e-5)
        winds.append(wind[0][label == WATER].max())
    # Two independent class jitters of sd 1.5 dB.
    np.testing.assert_allclose(np.std(between), 1.5 * np.sqrt(2), rtol=0.12)
    np.testing.assert_allclose(np.std(ramps), 3.0, rtol=0.12)
    assert max(winds) > 4.0
    assert min(winds) >= 0.0


def test_ramp_flips_with_the_orbit() -> None:
    ramp = Nuisance(ramp_db=4.0)
    label, zeros = checkered_label(41), np.zeros((2, 41, 41), np.float32)
    ascending = add_nuisance_db(zeros, label, ramp, "ascending")[0, 20]
    descending = add_nuisance_db(zeros, label, ramp, "descending")[0, 20]
    np.testing.assert_allclose(ascending[0] - ascending[-1], 4.0, atol=1e-4)
    np.testing.assert_allclose(descending[-1] - descending[0], 4.0, atol=1e-4)
