import numpy as np
import pytest
import tensorflow as tf

from models.augmentation import no_data

SEED = tf.constant([5, 3], tf.int64)
SIZE = 12


def margins(num_patches, seed, widest=2):
    """Valid masks bool [B, H, W] with a random margin on each side."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((num_patches, SIZE, SIZE), bool)
    for patch in mask:
        north, south, west, east = rng.integers(0, widest + 1, 4)
        patch[north : SIZE - south, west : SIZE - east] = True
    return mask


def numbered(mask, num_bands):
    """Images whose values are the number of the pixel (and band), NaN outside of `mask`."""
    number = np.arange(SIZE * SIZE).reshape(1, SIZE, SIZE, 1) + 1000.0 * np.arange(num_bands)
    return tf.constant(np.where(mask[..., None], number, np.nan), tf.float32)


def pair(num_patches=32):
    s1_mask, s2_mask = margins(num_patches, 0), margins(num_patches, 1)
    return {"s1": numbered(s1_mask, 2), "s2": numbered(s2_mask, 3)}, s1_mask & s2_mask


def test_one_missing_band_makes_a_pixel_invalid():
    image = np.ones((1, 2, 2, 3), np.float32)
    image[0, 0, 1, 2], image[0, 1, 0, 0] = np.nan, np.inf
    np.testing.assert_array_equal(
        no_data.pixel_mask(tf.constant(image))[0], [[True, False], [False, True]]
    )


def test_masking_jointly_takes_from_each_sensor_what_the_other_lacks():
    images, joint = pair()
    masked = no_data.mask_jointly(images)
    for sensor, image in masked.items():
        expected = np.where(joint[..., None], images[sensor], np.nan)
        np.testing.assert_array_equal(image, expected)


def test_hidden_gaps_show_the_same_ground_of_the_own_patch_in_both_sensors():
    images, joint = pair()
    hidden = {sensor: image.numpy() for sensor, image in no_data.hide_gaps(images, SEED).items()}
    for sensor, image in hidden.items():
        assert np.isfinite(image).all(), sensor
        # What both sensors saw is untouched.
        np.testing.assert_array_equal(image[joint], images[sensor].numpy()[joint])
        # All bands of a pixel come from one place.
        np.testing.assert_array_equal(
            image[..., 1:] - image[..., :1],
            1000.0 * np.arange(1, image.shape[-1]) + 0 * image[..., 1:],
        )
    np.testing.assert_array_equal(hidden["s1"][..., 0], hidden["s2"][..., 0])
    for patch, valid in zip(hidden["s1"][..., 0].astype(int), joint, strict=True):
        # Nothing but pixels that both sensors saw.
        assert valid.ravel()[patch.ravel()].all()


def test_fill_is_ground_in_one_piece_and_not_noise():
    mask = np.ones((8, SIZE, SIZE), bool)
    mask[:, :3] = False
    filled = no_data.hide_gaps({"s1": numbered(mask, 1)}, SEED)["s1"].numpy()[:, :3, :, 0]
    steps = np.abs(np.diff(filled, axis=2))
    assert (steps == 1).mean() > 0.8
    # Each patch its own.
    assert len({patch.tobytes() for patch in filled}) > 4


def test_what_cannot_be_filled_is_no_data_in_both_sensors():
    images, _ = pair(4)
    empty = {sensor: image.numpy() for sensor, image in images.items()}
    empty["s1"][1] = np.nan
    hidden = no_data.hide_gaps(
        {sensor: tf.constant(image) for sensor, image in empty.items()}, SEED
    )
    for image in hidden.values():
        np.testing.assert_array_equal(
            np.isnan(image).all(axis=(1, 2, 3)), [False, True, False, False]
        )


def test_patches_without_gaps_do_not_change():
    images = {
        "s1": tf.random.stateless_normal([3, 8, 8, 2], SEED),
        "s2": tf.random.stateless_normal([3, 8, 8, 4], SEED),
    }
    for sensor, image in no_data.hide_gaps(images, SEED).items():
        np.testing.assert_array_equal(image, images[sensor])


def test_each_patch_gets_the_gaps_of_another_patch_of_the_batch():
    gaps = margins(64, 2, widest=1)
    image = numbered(np.ones((64, SIZE, SIZE), bool), 2)
    after = no_data.give_gaps(image, tf.constant(gaps), SEED)
    given = np.isfinite(after).all(-1)
    np.testing.assert_array_equal(np.isfinite(after).any(-1), given)
    assert sorted(mask.tobytes() for mask in given) == sorted(mask.tobytes() for mask in gaps)
    assert np.mean([np.array_equal(a, b) for a, b in zip(given, gaps, strict=True)]) < 0.2
    np.testing.assert_array_equal(after.numpy()[given], image.numpy()[given])
    other = np.isfinite(
        no_data.give_gaps(image, tf.constant(gaps), tf.constant([5, 4], tf.int64))
    ).all(-1)
    assert not np.array_equal(given, other)


@pytest.mark.parametrize("seed", range(3))
def test_given_gaps_never_take_more_than_half(seed):
    rng = np.random.default_rng(seed)
    gaps = rng.random((64, SIZE, SIZE)) < rng.random((64, 1, 1))
    gaps[5] = False
    image = numbered(rng.random((64, SIZE, SIZE)) < rng.random((64, 1, 1)), 2)
    after = no_data.give_gaps(image, tf.constant(gaps), tf.constant([seed, 0], tf.int64))
    num_before, num_after = (np.isfinite(x).all(-1).sum(axis=(1, 2)) for x in (image, after))
    assert (num_after >= 0.5 * num_before).all()
    assert (num_after < num_before).any()
