import math

import numpy as np
import pytest
import tensorflow as tf

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


def one_crop(image, window):
    """The resize of one window as its definition says it, pixel by pixel: [H, W, C]."""
    top, left, height, width = window
    result = np.full(image.shape, np.nan)
    for i in range(SIZE):
        for j in range(SIZE):
            y = top + min(max((i + 0.5) * height / SIZE - 0.5, 0.0), height - 1.0)
            x = left + min(max((j + 0.5) * width / SIZE - 0.5, 0.0), width - 1.0)
            if np.isnan(image[math.floor(y + 0.5), math.floor(x + 0.5)]).any():
                continue
            total, weight = 0.0, 0.0
            for row in (math.floor(y), math.floor(y) + 1):
                for column in (math.floor(x), math.floor(x) + 1):
                    share = max(0.0, 1.0 - abs(y - row)) * max(0.0, 1.0 - abs(x - column))
                    if share > 0.0 and not np.isnan(image[row, column]).any():
                        total, weight = total + share * image[row, column], weight + share
            result[i, j] = total / weight
    return result


def linear(name, tensor):
    """Reflectance as it is, dB as power: the scale on which pixels are averaged."""
    values = np.asarray(tensor, np.float64)
    return 10.0 ** (values / 10.0) if name == "s1" else values


def draw_windows(mask):
    """Top, left, height and width of each window."""
    windows = crops._draw_windows(mask, CONFIG, SEED)
    return [side.numpy() for side in (windows.top, windows.left, windows.height, windows.width)]


def test_crop_is_masked_bilinear_and_the_same_for_both_sensors():
    batch = patches(gap=(slice(0, 3), slice(0, 9)))
    after = crops.random_crop(batch, CONFIG, SEED)
    mask = np.isfinite(batch["s1"]).all(-1)
    windows = np.stack(draw_windows(tf.constant(mask)), axis=1)
    assert len({tuple(window) for window in windows}) > 10
    for name, tensor in batch.items():
        expected = np.stack(
            [one_crop(image, w) for image, w in zip(linear(name, tensor), windows, strict=True)]
        )
        expected = 10.0 * np.log10(expected) if name == "s1" else expected
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-5)


def test_crop_keeps_the_mean_power_of_speckle():
    # 4.4 looks: Sentinel-1 GRD, interferometric wide swath.
    power = 0.05 * np.random.default_rng(1).gamma(4.4, 1 / 4.4, (32, 48, 48, 2))
    before = (10.0 * np.log10(power)).astype(np.float32)
    after = crops.random_crop({"s1": tf.constant(before)}, CONFIG, SEED)["s1"]
    change_db = 10.0 * np.log10(linear("s1", after).mean() / power.mean())
    # Means of dB values give -0.24 dB.
    assert abs(change_db) < 0.02


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
