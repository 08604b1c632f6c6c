import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from models.augmentation import radar
from models.augmentation.config import RadarConfig

SEED = tf.constant([8, 1], tf.int64)


def flat(num_patches=64, size=32):
    image = np.full((num_patches, size, size, 2), -12.0, np.float32)
    image[::2, :4] = np.nan
    return tf.constant(image)


def power(backscatter_db):
    return 10.0 ** (np.asarray(backscatter_db, np.float64) / 10.0)


def test_gain_adds_one_offset_in_db_per_patch_and_polarization():
    rng = np.random.default_rng(0)
    before = rng.normal(-12.0, 4.0, (500, 4, 4, 2)).astype(np.float32)
    before[3, 1] = np.nan
    config = RadarConfig(max_gain_db=2.0, max_polarization_gain_db=0.5)
    offset = radar.random_gain(tf.constant(before), config, SEED).numpy() - before
    per_patch = np.nanmedian(offset, axis=(1, 2))
    np.testing.assert_allclose(offset, per_patch[:, None, None] + 0 * before, atol=1e-5)
    assert 2.0 < np.abs(per_patch).max() <= 2.5
    assert 0.8 < np.abs(per_patch[:, 0] - per_patch[:, 1]).max() <= 1.0
    # Uniform: variances of both parts add.
    assert per_patch[:, 0].var() == pytest.approx(2.0**2 / 3 + 0.5**2 / 3, rel=0.15)
    assert np.cov(per_patch.T)[0, 1] == pytest.approx(2.0**2 / 3, rel=0.2)


def test_speckle_has_mean_one_and_variance_one_over_looks_in_power():
    config = RadarConfig(speckle_probability=1.0, min_speckle_looks=4.0)
    before = flat()
    after = radar.random_speckle(before, config, SEED).numpy()
    np.testing.assert_array_equal(np.isnan(after), np.isnan(before))
    ratio = power(after) / power(-12.0)
    draws = tf.random.stateless_uniform(
        [2, 64, 1, 1, 1], tf.random.experimental.stateless_fold_in(SEED, 0)
    )[1]
    looks = 4.0 * (1.0 + 3.0 * draws.numpy().ravel())
    assert looks.max() / looks.min() > 3
    assert np.nanmean(ratio) == pytest.approx(1.0, abs=0.01)
    variance = np.nanvar(ratio, axis=(1, 2, 3))
    np.testing.assert_allclose(variance * looks, np.ones(64), atol=0.2)
    assert (variance * looks).mean() == pytest.approx(1.0, abs=0.02)
    # Polarizations speckle each on its own, and so do neighbours.
    one, other = np.nan_to_num(ratio[1::2, ..., 0], nan=1.0), ratio[1::2, ..., 1]
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("looks", [1.0, 4.0])
def test_speckle_is_gamma_distributed(looks):
    config = RadarConfig(speckle_probability=1.0, min_speckle_looks=looks)
    ratio = power(
        radar.random_speckle(tf.fill([64, 32, 32, 2], -12.0), config, SEED).numpy()
    ) / power(-12.0)
    draws = tf.random.stateless_uniform(
        [2, 64, 1, 1, 1], tf.random.experimental.stateless_fold_in(SEED, 0)
    )[1]
    shapes = looks * (1.0 + 3.0 * draws.numpy().reshape(64, 1, 1, 1))
    # What a patch's own gamma makes of its pixels is uniform, whatever its looks.
    ranks = stats.gamma.cdf(ratio, shapes, scale=1.0 / shapes)
    assert stats.kstest(ranks.ravel(), "uniform").statistic < 0.01


def test_speckle_of_a_share_of_the_patches():
    before = flat(400, 8)
    after = radar.random_speckle(before, RadarConfig(speckle_probability=0.3), SEED).numpy()
    changed = np.any((after != before.numpy()) & np.isfinite(after), axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.3, abs=0.08)


def test_single_look_speckle_stays_finite():
    config = RadarConfig(speckle_probability=1.0, min_speckle_looks=1.0)
    after = radar.random_speckle(flat(), config, SEED).numpy()
    np.testing.assert_array_equal(np.isnan(after), np.isnan(flat()))
    assert np.nanmin(after) >= -12.0 - 40.0 - 1e-3


def test_blur_takes_the_mean_of_power():
    half = np.full((1, 64, 64, 1), -30.0, np.float32)
    half[:, ::2] = -10.0
    after = radar.random_radar_blur(tf.constant(half), 1.0, 100.0, SEED).numpy()
    sigma = 0.1 + 99.9 * tf.random.stateless_uniform([2, 1], SEED)[1].numpy()
    assert sigma > 3.0
    # Wide enough to mix both: the mean of power is -13 dB, that of dB would be -20.
    assert after[0, 32, 32, 0] == pytest.approx(
        10 * np.log10(0.5 * (power(-30.0) + power(-10.0))), abs=0.1
    )
