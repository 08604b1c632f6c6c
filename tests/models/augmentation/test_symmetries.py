import numpy as np
import tensorflow as tf

from models.augmentation.symmetries import random_symmetry

NUM_PATCHES = 64


def batch(height, width):
    """All images and the label hold the pixel number, to compare their symmetries."""
    number = np.arange(height * width).reshape(1, height, width) + np.zeros(
        (NUM_PATCHES, 1, 1), int
    )
    return {
        "s1": tf.constant(np.stack([number, -number], -1), tf.float32),
        "s2": tf.constant(np.stack([number, 2 * number, 3 * number], -1), tf.float32),
        "label": tf.constant(number, tf.uint8),
    }


def test_sensors_and_label_get_the_same_symmetry_and_all_eight_occur():
    before = batch(4, 4)
    after = {
        name: tensor.numpy()
        for name, tensor in random_symmetry(before, tf.constant([1, 2], tf.int64)).items()
    }
    np.testing.assert_array_equal(after["s1"][..., 0], after["label"])
    np.testing.assert_array_equal(after["s1"][..., 1], -after["s1"][..., 0])
    np.testing.assert_array_equal(after["s2"], after["s1"][..., :1] * [1, 2, 3])
    original = before["label"].numpy()[0]
    symmetries = {np.rot90(base, k).tobytes() for base in (original, original.T) for k in range(4)}
    assert {patch.tobytes() for patch in after["label"]} == symmetries


def test_no_data_moves_with_its_pixel():
    images = batch(4, 4)
    spoilt = tf.where(images["s1"] == 3.0, float("nan"), images["s1"])
    after = random_symmetry({**images, "s1": spoilt}, tf.constant([5, 6], tf.int64))
    np.testing.assert_array_equal(np.isnan(after["s1"][..., 0]), after["label"].numpy() == 3)


def test_patches_that_are_not_square_are_flipped_only():
    after = random_symmetry(batch(2, 4), tf.constant([1, 2], tf.int64))["label"].numpy()
    original = np.arange(8, dtype=np.uint8).reshape(2, 4)
    flips = {
        a.tobytes() for a in (original, original[::-1], original[:, ::-1], original[::-1, ::-1])
    }
    assert {patch.tobytes() for patch in after} == flips


def test_symmetries_depend_on_the_seed_only():
    one, same, other = (
        random_symmetry(batch(4, 4), tf.constant(seed, tf.int64))["label"].numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
