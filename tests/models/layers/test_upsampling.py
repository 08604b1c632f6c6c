import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers.upsampling import UpSampling2D

PIXELS = np.random.default_rng(0).normal(0.0, 30.0, (2, 3, 5, 4)).astype(np.float32)


def everything(layer, dtype, shape=(None, None, None, 4)):
    @tf.function(input_signature=[tf.TensorSpec(shape, dtype)])
    def run(pixels):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = layer(pixels)
            loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
        return outputs, tape.gradient(loss, pixels)

    return run(tf.cast(PIXELS, dtype))


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [("float32", "float32"), ("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")],
)
@pytest.mark.parametrize("size", [2, 4, 16])
def test_numbers_are_keras_own_bit_for_bit(policy, dtype, size):
    # Keras 3.15 cannot resize images whose size is unknown when the graph is traced.
    expected = everything(
        keras.layers.UpSampling2D(size, interpolation="bilinear", dtype=policy),
        dtype,
        PIXELS.shape,
    )
    for got, value in zip(
        everything(UpSampling2D(size, dtype=policy), dtype), expected, strict=True
    ):
        assert got.dtype == value.dtype == dtype
        assert got.shape == value.shape
        assert tf.reduce_all(got == value)


@pytest.mark.parametrize("size", [2, (1, 3), (4, 2)])
def test_pixels_are_repeated_as_by_keras(size):
    layers = [
        layer(size, interpolation="nearest") for layer in (UpSampling2D, keras.layers.UpSampling2D)
    ]
    (got, slopes), (expected, expected_slopes) = (everything(layer, "float32") for layer in layers)
    np.testing.assert_array_equal(got, expected)
    # Sums of the same numbers in another order.
    np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-5)


def test_configs_of_keras_own_layer_are_read():
    layer = UpSampling2D.from_config(
        keras.layers.UpSampling2D(2, interpolation="nearest").get_config()
    )
    np.testing.assert_array_equal(layer(PIXELS)[0, :2, :2, 0], np.full((2, 2), PIXELS[0, 0, 0, 0]))
