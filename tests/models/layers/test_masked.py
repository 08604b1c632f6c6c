import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers.masked import (
    LabelOutput,
    MaskedGlobalAveragePooling2D,
    PixelNormalization,
    dtype_policy,
)

NORMALIZATION = PixelNormalization(mean=(-12.0, -19.0), std=(4.0, 2.0))


def backscatter(seed=0):
    return np.random.default_rng(seed).normal(-14.0, 4.0, (2, 6, 8, 2)).astype(np.float32)


def test_normalization_gives_z_scores_of_the_train_statistics():
    pixels = backscatter()
    z_scores, valid_mask = NORMALIZATION(pixels)
    np.testing.assert_allclose(
        z_scores, (pixels - [-12.0, -19.0]) / [4.0, 2.0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(valid_mask, np.ones((2, 6, 8, 1)))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
def test_pixel_with_one_bad_band_becomes_zero_in_all_and_changes_no_other(garbage):
    pixels = backscatter()
    spoilt = pixels.copy()
    spoilt[1, 2, 3, 0] = garbage
    clean, _ = NORMALIZATION(pixels)
    z_scores, valid_mask = NORMALIZATION(spoilt)
    expected = clean.numpy()
    expected[1, 2, 3] = 0.0
    np.testing.assert_array_equal(z_scores, expected)
    assert valid_mask.numpy().sum() == 2 * 6 * 8 - 1
    assert valid_mask.numpy()[1, 2, 3, 0] == 0.0


def test_gradient_stays_finite_beside_no_data():
    pixels = backscatter()
    pixels[0, 0] = np.nan
    variable = tf.Variable(pixels)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(NORMALIZATION(variable)[0]))
    gradient = tape.gradient(loss, variable).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 0], 0.0)


def test_normalization_stays_float32_under_mixed_precision():
    with dtype_policy("mixed_bfloat16"):
        layer = PixelNormalization(mean=(-12.0,), std=(4.0,))
    # bfloat16 has steps of 0.0625 at 12: -12.01 and -12.0 would be one value.
    z_scores, _ = layer(np.full((1, 1, 1, 1), -12.01, np.float32))
    assert z_scores.dtype == tf.float32
    assert float(z_scores[0, 0, 0, 0]) == pytest.approx(-0.0025, rel=1e-3)


def test_normalization_refuses_a_band_without_spread():
    with pytest.raises(ValueError, match="std be above 0"):
        PixelNormalization(mean=(0.0, 1.0), std=(1.0, 0.0))


def test_masked_pooling_is_the_weighted_mean():
    features = np.array([[[[1.0, 10.0], [3.0, 30.0]]]], np.float32)
    weights = np.array([[[[0.25], [0.75]]]], np.float32)
    np.testing.assert_allclose(
        MaskedGlobalAveragePooling2D()(features, weights), [[2.5, 25.0]], rtol=1e-6
    )


def test_masked_pooling_of_nothing_is_zero():
    features = np.full((1, 2, 2, 3), 7.0, np.float32)
    np.testing.assert_array_equal(
        MaskedGlobalAveragePooling2D()(features, np.zeros((1, 2, 2, 1), np.float32)), [[0, 0, 0]]
    )


def test_label_output_says_255_where_no_sensor_has_data():
    probabilities = np.array([[[[0.2, 0.8], [0.9, 0.1], [0.3, 0.7]]]], np.float32)
    label = LabelOutput()(probabilities, np.array([[[[1.0], [1.0], [0.0]]]], np.float32))
    assert label.dtype == tf.int32
    np.testing.assert_array_equal(label, [[[1, 0, 255]]])


def test_label_output_of_two_classes_takes_the_second_above_its_threshold():
    layer, mask = LabelOutput(), np.ones((1, 1, 3, 1), np.float32)
    second = np.array([0.3, 0.4, 0.6], np.float32)
    probabilities = np.stack([1 - second, second], axis=-1)[None, None]
    np.testing.assert_array_equal(layer(probabilities, mask), [[[0, 0, 1]]])
    layer.threshold.assign(0.3)
    np.testing.assert_array_equal(layer(probabilities, mask), [[[0, 1, 1]]])
    assert not layer.trainable_weights


def test_label_output_of_more_classes_takes_the_likeliest():
    layer = LabelOutput()
    probabilities = np.array([[[[0.3, 0.3, 0.4], [0.5, 0.4, 0.1]]]], np.float32)
    np.testing.assert_array_equal(
        layer(probabilities, np.ones((1, 1, 2, 1), np.float32)), [[[2, 0]]]
    )
    assert layer.threshold is None


def test_label_output_of_a_file_without_a_threshold_keeps_its_own():
    layer = LabelOutput()
    layer.build((None, None, None, 2))
    layer.load_own_variables({})
    assert float(layer.threshold) == 0.5
    layer.load_own_variables({"0": np.float32(0.25)})
    assert float(layer.threshold) == 0.25


@pytest.mark.parametrize("layer", [NORMALIZATION, MaskedGlobalAveragePooling2D(), LabelOutput()])
def test_layers_survive_their_config(layer):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()


def test_dtype_policy_is_put_back_after_an_error():
    before = keras.config.dtype_policy().name
    with pytest.raises(RuntimeError), dtype_policy("mixed_bfloat16"):
        raise RuntimeError
    assert keras.config.dtype_policy().name == before
