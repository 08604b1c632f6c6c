import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from models.augmentation import crops
from models.augmentation.config import GeometryConfig

CONFIG = GeometryConfig(min_crop_fraction=0.3)
SEED = tf.constant([4, 7], tf.int64)
SIZE = 12


def patches(num_patches=16, gap=None, seed=0):
    rng = np.random.default_rng(seed)
    s1 = rng.normal(-12.0, 3.0, (num_patches, SIZE, SIZE, 2)).astype(np.float32)
    s2 = rng.uniform(0.0, 0.5, (num_patches, SIZE, SIZE, 3)).astype(np.float32)
    if gap is not None:
        s1[:, gap[0], gap[1]] = np.nan
    return {"s1": tf.constant(s1), "s2": tf.constant(s2)}


def nearest_pixel(window, i, j):
    """The position of pixel (i, j) of a crop in the patch, and the pixel it lies in."""
    top, left, height, width = window
    y = top + min(max((i + 0.5) * height / SIZE - 0.5, 0.0), height - 1.0)
    x = left + min(max((j + 0.5) * width / SIZE - 0.5, 0.0), width - 1.0)
    return (y, x), (math.floor(y + 0.5), math.floor(x + 0.5))


def one_optical_crop(image, window):
    """The resize of one window as its definition says it, pixel by pixel: [H, W, C]."""
    result = np.full(image.shape, np.nan)
    for i, j in np.ndindex(SIZE, SIZE):
        (y, x), nearest = nearest_pixel(window, i, j)
        if np.isnan(image[nearest]).any():
            continue
        total, weight = 0.0, 0.0
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                share = max(0.0, 1.0 - abs(y - row)) * max(0.0, 1.0 - abs(x - column))
                if share > 0.0 and not np.isnan(image[row, column]).any():
                    total, weight = total + share * image[row, column], weight + share
        result[i, j] = total / weight
    return result


def one_radar_crop(image, window):
    """The nearest pixels of one window, [H, W, C]."""
    result = np.full(image.shape, np.nan)
    for i, j in np.ndindex(SIZE, SIZE):
        result[i, j] = image[nearest_pixel(window, i, j)[1]]
    return result


def draw_windows(mask):
    """Top, left, height and width of each window."""
    windows = crops._draw_windows(mask, CONFIG, SEED)
    return [side.numpy() for side in (windows.top, windows.left, windows.height, windows.width)]


def test_crop_takes_one_window_bilinear_in_optical_and_nearest_in_radar():
    batch = patches(gap=(slice(0, 3), slice(0, 9)))
    batch["s2"] = tf.where(tf.math.is_nan(batch["s1"][..., :1]), np.nan, batch["s2"])
    after = crops.random_crop(batch, CONFIG, SEED)
    windows = np.stack(draw_windows(tf.math.is_finite(batch["s1"][..., 0])), axis=1)
    assert len({tuple(window) for window in windows}) > 10
    for name, one_crop in (("s1", one_radar_crop), ("s2", one_optical_crop)):
        images = batch[name].numpy().astype(float)
        expected = [one_crop(*pair) for pair in zip(images, windows, strict=True)]
        np.testing.assert_allclose(after[name], np.stack(expected), rtol=1e-4, atol=1e-5)


# 4.4: Sentinel-1 GRD, interferometric wide swath. 15: after a multi-look or a filter.
@pytest.mark.parametrize("looks", [1.0, 4.4, 15.0])
def test_crop_keeps_the_distribution_of_speckle(looks):
    power = np.random.default_rng(1).gamma(looks, 1.0 / looks, (64, 48, 48, 2))
    before = (10.0 * np.log10(power)).astype(np.float32)
    after = crops.random_crop({"s1": tf.constant(before)}, CONFIG, SEED)["s1"].numpy()
    assert (after != before).mean() > 0.8
    # Moments of the logarithm of a gamma variable: Johnson et al. 1995, Continuous
    # Univariate Distributions 2, section 22.
    db_per_e = 10.0 / math.log(10.0)
    mean_db = db_per_e * (special.digamma(looks) - math.log(looks))
    std_db = db_per_e * math.sqrt(special.polygamma(1, looks))
    assert after.mean() == pytest.approx(mean_db, abs=0.02 * std_db)
    # Means of the power of neighbours give 0.6 to 0.7 of it.
    assert after.std() == pytest.approx(std_db, rel=0.02)
    # The fainter half of speckle is what water and shadow look like: the whole shape
    # counts.
    ranks = stats.gamma.cdf(10.0 ** (after / 10.0), looks, scale=1.0 / looks)
    assert stats.kstest(ranks.ravel(), "uniform").statistic < 0.01


def test_radar_pixel_keeps_its_own_label():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, (16, SIZE, SIZE))
    backscatter_db = np.where(label, -20.0, -10.0)[..., np.newaxis].astype(np.float32)
    batch = {"s1": tf.constant(backscatter_db), "label": tf.constant(label, tf.uint8)}
    after = crops.random_crop(batch, CONFIG, SEED)
    np.testing.assert_array_equal(after["s1"][..., 0] == -20.0, after["label"] == 1)
    assert (after["label"].numpy() != label).mean() > 0.2


def test_windows_keep_area_aspect_and_borders():
    mask = tf.ones([2000, 40, 60], tf.bool)
    top, left, height, width = draw_windows(mask)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 40).all()
    assert (left + width <= 60).all()
    share = height * width / (40 * 60)
    assert share.min() >= 0.3
    # Uniform between the least and the whole.
    assert np.quantile(share, [0.25, 0.5, 0.75]) == pytest.approx([0.475, 0.65, 0.825], abs=0.04)
    aspect = (height / 40) / (width / 60)
    assert aspect.max() <= 4 / 3 * 1.06
    assert aspect.min() >= 3 / 4 / 1.06
    # Every place is reached, the far border, too.
    assert (top + height == 40).mean() > 0.03
    assert (left == 0).mean() > 0.03


def test_labels_follow_the_nearest_pixel_and_the_mask_follows_the_labels():
    number = np.arange(SIZE * SIZE).reshape(1, SIZE, SIZE) + np.zeros((16, 1, 1), int)
    image = np.where(number[..., None] % 5 == 0, np.nan, number[..., None]).astype(np.float32)
    batch = {
        "s1": tf.constant(image),
        "label": tf.constant(number, tf.uint8),
        "weight": tf.range(16.0),
    }
    after = crops.random_crop(batch, CONFIG, SEED)
    label = after["label"].numpy()
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(np.isnan(after["s1"][..., 0]), label % 5 == 0)
    np.testing.assert_array_equal(after["weight"], batch["weight"])


def test_no_value_comes_from_outside_what_was_there():
    batch = patches(gap=(slice(4, 7), slice(2, 8)))
    # Would a fill take part in a mean, values would move towards it.
    after = crops.random_crop(batch, CONFIG, SEED)["s1"].numpy()
    before = batch["s1"].numpy()
    for old, new in zip(before, after, strict=True):
        assert np.nanmin(new) >= np.nanmin(old) - 1e-4
        assert np.nanmax(new) <= np.nanmax(old) + 1e-4


def test_whole_patch_is_returned_to_the_bit_where_no_window_is_good():
    batch = patches()
    lonely = np.full(batch["s1"].shape, np.nan, np.float32)
    lonely[:, 0, 0] = -10.0
    lonely[3] = np.nan
    after = crops.random_crop({"s1": tf.constant(lonely)}, CONFIG, SEED)["s1"].numpy()
    valid = np.isfinite(after).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(valid, np.arange(16) != 3)
    whole = crops.random_crop(
        batch, GeometryConfig(min_crop_fraction=1.0, max_crop_aspect=1.0), SEED
    )
    np.testing.assert_array_equal(whole["s2"], batch["s2"])


@pytest.mark.parametrize("seed", range(3))
def test_sparse_patches_are_never_emptied(seed):
    rng = np.random.default_rng(seed)
    image = np.where(rng.random((64, SIZE, SIZE, 1)) < 0.02, 1.0, np.nan).astype(np.float32)
    before = np.isfinite(image).any(axis=(1, 2, 3))
    after = crops.random_crop({"s1": tf.constant(image)}, CONFIG, tf.constant([seed, 1], tf.int64))[
        "s1"
    ]
    np.testing.assert_array_equal(np.isfinite(after).any(axis=(1, 2, 3)), before)


def test_crops_depend_on_the_seed_only():
    batch = patches()
    one, same = (crops.random_crop(batch, CONFIG, SEED)["s2"].numpy() for _ in range(2))
    other = crops.random_crop(batch, CONFIG, tf.constant([4, 8], tf.int64))["s2"].numpy()
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
