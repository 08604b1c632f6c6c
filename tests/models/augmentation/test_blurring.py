import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from models.augmentation.blurring import random_blur

SEED = tf.constant([1, 2], tf.int64)


def sigmas(num_patches, max_sigma_px):
    return (
        0.1 + (max_sigma_px - 0.1) * tf.random.stateless_uniform([2, num_patches], SEED)[1].numpy()
    )


def test_blur_is_a_gaussian_mean_of_the_valid_pixels():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 10, 14, 3)).astype(np.float32)
    image[:, 2:5, :6] = np.nan
    after = random_blur(tf.constant(image), 1.0, 2.0, SEED).numpy()
    valid = np.isfinite(image[..., 0]).astype(float)
    filled = np.nan_to_num(image)
    for patch, sigma in enumerate(sigmas(6, 2.0)):
        # Beyond the border is no data, too.
        options = {"sigma": sigma, "mode": "constant", "radius": 20}
        weight = ndimage.gaussian_filter(valid[patch], **options)
        for band in range(3):
            expected = (
                ndimage.gaussian_filter(filled[patch, ..., band].astype(float), **options) / weight
            )
            expected[valid[patch] == 0] = np.nan
            np.testing.assert_allclose(after[patch, ..., band], expected, rtol=1e-3, atol=1e-4)


def test_share_of_the_patches_is_blurred_and_the_others_are_untouched():
    image = tf.random.stateless_normal([400, 6, 6, 1], SEED)
    after = random_blur(image, 0.25, 2.0, SEED)
    changed = np.any(after.numpy() != image.numpy(), axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(0.25, abs=0.07)
    np.testing.assert_array_equal(random_blur(image, 0.0, 2.0, SEED), image)


def test_lone_valid_pixel_keeps_its_value_and_the_empty_patch_stays_empty():
    image = np.full((2, 8, 8, 2), np.nan, np.float32)
    image[0, 3, 4] = [5.0, -7.0]
    after = random_blur(tf.constant(image), 1.0, 2.0, SEED).numpy()
    np.testing.assert_allclose(after, image, rtol=1e-6)
