"""Radiometry: closed forms of dB and power, rules of no data, and the 2022 offset."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.scenes import radiometry


def test_known_decibels():
    power = radiometry.db_to_power(np.array([0.0, 10.0, -10.0, -3.0102999566]))
    assert power == pytest.approx([1.0, 10.0, 0.1, 0.5])
    assert radiometry.power_to_db(np.array([100.0, 0.001, 2.0])) == pytest.approx(
        [20.0, -30.0, 3.0102999566]
    )


@settings(max_examples=50, deadline=None)
@given(st.floats(-70.0, 40.0))
def test_power_and_back_gives_the_decibels(value):
    assert radiometry.power_to_db(radiometry.db_to_power(np.array([value])))[0] == pytest.approx(
        value, abs=1e-9
    )


def test_the_mean_in_power_is_not_the_mean_in_decibels():
    values = np.array([-20.0, 0.0])
    mean = radiometry.power_to_db(np.array([radiometry.db_to_power(values).mean()]))[0]
    assert mean == pytest.approx(10 * np.log10(0.505))
    assert abs(mean - values.mean()) > 7


def test_power_that_is_not_above_zero_has_no_decibels():
    got = radiometry.power_to_db(np.array([0.0, -1.0, np.nan, 1.0]))
    assert np.isnan(got).tolist() == [True, True, True, False]
    assert np.isnan(radiometry.db_to_power(np.array([np.nan])))[0]


def test_backscatter_without_measurement_becomes_nan_and_the_rest_stays():
    vv = [-10.5, np.nan, -99.0, -71.0, 41.0, np.inf, -70.0, 40.0]
    vh = [-17.5, -18.0, -18.5, -19.0, -20.0, -21.0, -22.0, -23.0]
    got = radiometry.clean_backscatter_db(np.array([[vv], [vh]], np.float64))
    assert got.dtype == np.float32
    assert np.isnan(got[0, 0]).tolist() == [False, True, True, True, True, True, False, False]
    assert got[1, 0].tolist() == vh
    assert got[0, 0, 0] == np.float32(-10.5)


def test_zero_is_fill_only_when_all_polarizations_are_zero():
    pixels = np.array([[[0.0, 0.0, -8.0]], [[0.0, -14.0, 0.0]]])
    got = radiometry.clean_backscatter_db(pixels)
    assert np.isnan(got).tolist() == [[[True, False, False]], [[True, False, False]]]
    assert got[0, 0, 1] == 0.0


def test_the_offset_is_taken_away_and_the_darkest_pixels_stay_measurements():
    dn = np.array([[[1200, 900, 1000, 0, 11000]]], np.uint16)
    got = radiometry.dn_to_reflectance(dn, 1000)[0, 0]
    assert got[[0, 4]] == pytest.approx([0.02, 1.0])
    assert got[[1, 2]] == pytest.approx([0.0001, 0.0001])
    assert np.isnan(got).tolist() == [False, False, False, True, False]


def test_without_offset_digital_numbers_are_ten_thousandths():
    got = radiometry.dn_to_reflectance(np.array([[[1200, 1, 0]]], np.int16), 0)[0, 0]
    assert got.dtype == np.float32
    assert got[:2] == pytest.approx([0.12, 0.0001])
    assert np.isnan(got[2])


def test_fill_values_are_no_data_before_the_offset_is_taken_away():
    dn = np.array([[[-9999.0, -1.0, np.nan, 1500.0]]])
    got = radiometry.dn_to_reflectance(dn, 1000)[0, 0]
    assert np.isnan(got).tolist() == [True, True, True, False]
    assert got[3] == pytest.approx(0.05)


def l1c(seed: int, offset: int, low: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dn = rng.integers(low, 5000, (13, 40, 40))
    dn[S2_L1C_BANDS.index("B10")] = rng.integers(3, 60, (40, 40))
    return dn + offset


@pytest.mark.parametrize("offset", [0, 1000])
def test_cirrus_tells_the_offset_of_level_1c(offset):
    assert radiometry.detect_dn_offset(l1c(1, offset), S2_L1C_BANDS) == offset


@pytest.mark.parametrize("offset", [0, 1000])
def test_bright_snow_does_not_hide_what_cirrus_tells(offset):
    assert radiometry.detect_dn_offset(l1c(2, offset, low=3500), S2_L1C_BANDS) == offset


def test_cirrus_with_no_data_around_it_still_tells():
    dn = l1c(3, 1000)
    dn[:, :35] = 0
    assert radiometry.detect_dn_offset(dn, S2_L1C_BANDS) == 1000


def test_a_dark_pixel_proves_that_level_2a_has_no_offset():
    dn = np.random.default_rng(4).integers(150, 4000, (12, 40, 40))
    assert radiometry.detect_dn_offset(dn, S2_L2A_BANDS) == 0


def test_hazy_level_2a_is_never_called_offset():
    # Haze lifts everything: the 1st percentile exceeds 1000, as it would with the
    # offset.
    hazy = np.random.default_rng(5).integers(1300, 6000, (12, 40, 40))
    assert np.percentile(hazy, 1) > 1000
    assert radiometry.detect_dn_offset(hazy, S2_L2A_BANDS) is None


def test_a_hazy_scene_with_some_dark_pixels_has_no_offset():
    dn = np.random.default_rng(6).integers(1300, 6000, (12, 40, 40))
    dn[1, :10, :5] = 300
    assert radiometry.detect_dn_offset(dn, S2_L2A_BANDS) == 0


def test_dark_water_of_an_offset_scene_is_no_proof_against_the_offset():
    dn = np.random.default_rng(8).integers(1100, 4000, (12, 40, 40))
    dn[11, :10] = np.random.default_rng(9).integers(850, 1000, (10, 40))
    assert radiometry.detect_dn_offset(dn, S2_L2A_BANDS) is None


def test_single_bad_pixels_do_not_decide():
    dn = np.random.default_rng(7).integers(1300, 6000, (12, 100, 100))
    dn[0, 0, :5] = 12
    assert radiometry.detect_dn_offset(dn, S2_L2A_BANDS) is None


def test_dark_pixels_beside_cirrus_at_the_offset_are_a_contradiction():
    # A sheet of cirrus over a scene without the offset: B10 alone would say 1000.
    dn = l1c(1, 0)
    dn[S2_L1C_BANDS.index("B10")] += 1200
    assert radiometry.detect_dn_offset(dn, S2_L1C_BANDS) is None


def test_each_band_counts_the_same_whatever_its_pixel_size():
    # 5 of 1,000 numbers of one band in ten are dark; most of its pixels are no data.
    dn = np.random.default_rng(11).integers(1100, 4000, (10, 4000))
    dn[3, 1000:] = 0
    dn[3, :20] = 300
    assert radiometry.detect_dn_offset(dn, S2_L2A_BANDS[:10]) == 0


def test_values_that_begin_at_the_offset_are_told_from_haze_sand_and_cloud():
    rng = np.random.default_rng(12)
    dark = rng.integers(20, 3000, (12, 50, 50))
    assert radiometry.begins_at_offset(dark + 1000)
    assert not radiometry.begins_at_offset(dark)
    # Sand: blue begins at 0.11, the infrared at 0.4. Cloud: all bands are bright.
    sand = np.linspace(1100, 4200, 12)[:, None, None] + rng.integers(0, 900, (12, 50, 50))
    assert not radiometry.begins_at_offset(sand)
    assert not radiometry.begins_at_offset(rng.integers(2200, 9000, (12, 50, 50)))
    # Haze over vegetation: the visible bands are lifted, the infrared is not.
    hazy = rng.integers(300, 3000, (12, 50, 50))
    hazy[:4] += 900
    assert not radiometry.begins_at_offset(hazy)
    assert not radiometry.begins_at_offset(np.zeros((2, 5, 5)))


def test_numbers_that_no_measurement_can_be_are_no_data():
    dn = np.array([[[np.inf, -np.inf, -1e30, 1e20, 70_000.0, 65_535.0, 1.0]]], np.float32)
    got = radiometry.dn_to_reflectance(dn, 0)[0, 0]
    assert np.isnan(got).tolist() == [True] * 5 + [False, False]
    assert got[5:] == pytest.approx([6.5535, 0.0001])


def test_no_valid_pixel_tells_nothing():
    assert radiometry.detect_dn_offset(np.zeros((13, 5, 5)), S2_L1C_BANDS) is None


def test_declared_units_become_what_archives_hold():
    stored = np.array([0.0, 1.0, 51.0, 255.0, np.nan], np.float32)
    in_db = radiometry.declared_values(stored, "dB", 0.1, -25.0)
    assert in_db[:4] == pytest.approx([-25.0, -24.9, -19.9, 0.5], abs=1e-5)
    # Linear: 10 log10 of (stored / 255), and nothing for no power at all.
    in_power = radiometry.declared_values(stored, "power", 1 / 255, 0.0)
    assert in_power[1:4] == pytest.approx([-24.0654018, -6.9897000, 0.0], abs=1e-4)
    assert np.isnan(in_power[[0, 4]]).all()
    # Reflectance 0-0.51 as digital numbers; black is the darkest measurement.
    dn = radiometry.declared_values(stored, "reflectance", 0.002, 0.0)
    assert dn[:4] == pytest.approx([1.0, 20.0, 1020.0, 5100.0], rel=1e-5)
    assert all(np.isnan(values[4]) for values in (in_db, dn))


def test_zero_decibels_are_a_measurement_where_no_data_was_declared():
    pixels = np.zeros((1, 1, 2), np.float32)
    assert np.isnan(radiometry.clean_backscatter_db(pixels)).all()
    assert (radiometry.clean_backscatter_db(pixels, is_zero_missing=False) == 0.0).all()
