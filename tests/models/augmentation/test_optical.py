import numpy as np
import pytest
import tensorflow as tf

from beam_jobs.contracts.bands import S2_BANDS, S2_L1C_BANDS, S2_L2A_BANDS
from models.augmentation import optical
from models.augmentation.config import OpticalConfig

SEED = tf.constant([8, 1], tf.int64)


def ground(bands=S2_L2A_BANDS, num_patches=300):
    image = (
        np.random.default_rng(0)
        .uniform(0.01, 0.6, (num_patches, 4, 4, len(bands)))
        .astype(np.float32)
    )
    image[::3, 0] = np.nan
    return image


def test_gain_is_one_factor_per_patch_and_band():
    before = ground()
    factor = (
        optical.random_gain(
            tf.constant(before), OpticalConfig(max_gain=0.2, max_band_gain=0.1), SEED
        )
        / before
    )
    per_band = np.nanmedian(factor, axis=(1, 2))
    np.testing.assert_allclose(factor, per_band[:, None, None] + 0 * before, rtol=1e-5)
    assert per_band.min() >= 0.8 * 0.9
    assert per_band.max() <= 1.2 * 1.1
    # What bands share is the stronger part.
    light = per_band.mean(axis=1)
    assert light.std() == pytest.approx(0.2 / 3**0.5, rel=0.15)
    assert (per_band / light[:, None]).std() == pytest.approx(0.1 / 3**0.5, rel=0.15)


def test_haze_adds_more_the_shorter_the_wavelength_and_nothing_to_cirrus():
    before = ground(S2_L1C_BANDS)
    config = OpticalConfig(haze_probability=1.0, max_haze_reflectance=0.05)
    added = optical.random_haze(tf.constant(before), S2_L1C_BANDS, config, SEED).numpy() - before
    np.testing.assert_array_equal(np.isnan(added), np.isnan(before))
    haze = np.nanmedian(added, axis=(1, 2))
    np.testing.assert_allclose(added, haze[:, None, None] + 0 * before, atol=1e-6)
    cirrus = S2_L1C_BANDS.index("B10")
    np.testing.assert_array_equal(haze[:, cirrus], np.zeros(300))
    others = [band for band in range(13) if band != cirrus]
    wavelength_nm = np.array([S2_BANDS[name].wavelength_nm for name in S2_L1C_BANDS])[others]
    thick = haze[haze[:, 1] > 0.01][:, others]
    assert len(thick) > 100
    assert (np.diff(thick[:, np.argsort(wavelength_nm)], axis=1) < 0).all()
    # A power law of the wavelength with an exponent of haze.
    slope = np.polyfit(np.log(wavelength_nm), np.log(thick).T, 1)[0]
    assert slope.min() >= -2.0 - 0.05
    assert slope.max() <= -0.5 + 0.05
    assert haze[:, 1].max() == pytest.approx(0.05, abs=0.002)


def test_haze_of_a_share_of_the_patches_with_bands_in_any_order():
    bands = ("B8", "B2")
    before = ground(bands)
    after = optical.random_haze(
        tf.constant(before), bands, OpticalConfig(haze_probability=0.4), SEED
    ).numpy()
    added = np.nanmedian(after - before, axis=(1, 2))
    assert (added[:, 1] > 0).mean() == pytest.approx(0.4, abs=0.08)
    assert (added[:, 1] >= added[:, 0]).all()
