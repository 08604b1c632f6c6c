"""The convolution's kernels against Keras' and TensorFlow's own, and when which is taken."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers import convolution


def with_gradients(function, *inputs):
    """The output, and the gradients of its product with fixed numbers, as float32."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(*inputs)
        upstream = tf.cast(tf.random.stateless_normal(tf.shape(output), [1, 2]), output.dtype)
        loss = tf.reduce_sum(output * upstream)
    return [
        np.asarray(tf.cast(value, tf.float32)) for value in (output, *tape.gradient(loss, inputs))
    ]


def random(shape, seed, dtype=tf.float32):
    return tf.cast(tf.random.stateless_normal(shape, [seed, 0]), dtype)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("size", [(6, 6), (5, 7)])
def test_pointwise_is_the_1x1_convolution(strides, size):
    pixels, kernel = random((3, *size, 8), 0), random((1, 1, 8, 5), 1)
    got = with_gradients(lambda x, k: convolution.pointwise(x, k, strides), pixels, kernel)
    expected = with_gradients(lambda x, k: tf.nn.conv2d(x, k, strides, "SAME"), pixels, kernel)
    for value, known in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, known, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.1)])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_several_inputs_are_convolved_as_if_they_were_concatenated(dtype, tolerance, kernel_size):
    parts = [random((2, 6, 8, channels), channels, getattr(tf, dtype)) for channels in (4, 2, 1)]
    layer = convolution.Conv2D(5, kernel_size, padding="same", dtype=dtype)
    assert (
        layer(parts).shape
        == layer.compute_output_shape([tuple(part.shape) for part in parts])
        == (2, 6, 8, 5)
    )
    kernel = tf.cast(layer.kernel, dtype)
    got = with_gradients(
        lambda *inputs: layer.convolution_op(inputs[:-1], inputs[-1]), *parts, kernel
    )
    expected = with_gradients(
        lambda *inputs: tf.nn.conv2d(tf.concat(inputs[:-1], -1), inputs[-1], 1, "SAME"),
        *parts,
        kernel,
    )
    for value, known in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, known, rtol=tolerance, atol=tolerance)


# Below and above the number of pixels from which on oneDNN's kernel is taken.
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (8, 8), (10, 10), (12, 9)])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_convolve_3x3_is_the_convolution(size, padding):
    pixels, kernel = random((3, *size, 8), 0), random((3, 3, 8, 5), 1)
    got = with_gradients(lambda x, k: convolution.convolve_3x3(x, k, padding), pixels, kernel)
    expected = with_gradients(lambda x, k: tf.nn.conv2d(x, k, 1, padding), pixels, kernel)
    for value, known in zip(got, expected, strict=True):
        np.testing.assert_allclose(value, known, rtol=1e-5, atol=1e-4)


def test_size_may_be_unknown_until_it_runs():
    kernel = random((3, 3, 8, 5), 1)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 8])])
    def by_kernel(pixels):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(convolution.convolve_3x3(pixels, kernel) ** 2)
        return tape.gradient(loss, kernel)

    for size in (4, 12):
        pixels = random((2, size, size, 8), size)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(tf.nn.conv2d(pixels, kernel, 1, "SAME") ** 2)
        np.testing.assert_allclose(
            by_kernel(pixels), tape.gradient(loss, kernel), rtol=1e-4, atol=1e-2
        )


# Padding "same" has less above and left of a strided kernel.
@pytest.mark.parametrize(
    ("kernel_size", "strides", "widths"),
    [(1, 1, (0, 0)), (3, 1, (1, 1)), (3, 2, (0, 1)), (7, 2, (2, 3)), (1, 2, (0, 0))],
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.1), ("mixed_float16", 0.02)]
)
def test_mirrored_border_is_that_of_numpy(kernel_size, strides, widths, dtype, tolerance):
    layer = convolution.Conv2D(
        5, kernel_size, strides=strides, padding="same", border="mirror", dtype=dtype
    )
    pixels = tf.cast(random((2, 8, 6, 256), 0), layer.compute_dtype)
    shape = layer.compute_output_shape(pixels.shape)
    assert (2, 8 // strides, 6 // strides, 5) == layer(pixels).shape == shape
    sources = [np.pad(np.arange(n), widths, "symmetric") for n in (8, 6)]

    def expected(image):
        padded = tf.gather(tf.gather(image, sources[0], axis=1), sources[1], axis=2)
        return tf.nn.conv2d(padded, layer.kernel, strides, "VALID")

    got, known = (
        with_gradients(function, image)
        for function, image in ((layer, pixels), (expected, tf.cast(pixels, tf.float32)))
    )
    for value, right in zip(got, known, strict=True):
        np.testing.assert_allclose(value, right, rtol=tolerance, atol=tolerance)


def test_border_of_one_colour_is_seen_with_zeros_only():
    spread = {}
    for border in ("zeros", "mirror"):
        keras.utils.set_random_seed(0)
        layer = convolution.Conv2D(4, 3, padding="same", border=border)
        spread[border] = np.ptp(layer(tf.fill([1, 8, 8, 3], 2.0)), axis=(1, 2)).max()
    assert spread["mirror"] < 1e-5 < 0.1 < spread["zeros"]


@pytest.mark.parametrize("options", [{"padding": "valid"}, {"padding": "same", "dilation_rate": 2}])
def test_mirrored_border_of_another_convolution_is_refused(options):
    with pytest.raises(ValueError, match="border mirror needs padding same and dilation_rate 1"):
        convolution.Conv2D(4, 3, border="mirror", **options)


def test_single_pixel_has_a_mirrored_border():
    layer = convolution.Conv2D(4, 3, padding="same", border="mirror")
    pixel = random((2, 1, 1, 3), 0)
    output = layer(pixel)
    np.testing.assert_allclose(
        output[:, 0, 0],
        pixel[:, 0, 0] @ tf.reduce_sum(layer.kernel, axis=[0, 1]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_border_survives_the_config():
    layer = convolution.Conv2D(4, 3, padding="same", border="mirror")
    assert convolution.Conv2D.from_config(layer.get_config()).border == "mirror"
    # Files from before there was a choice do not name the border.
    config = layer.get_config()
    del config["border"]
    assert convolution.Conv2D.from_config(config).border == "zeros"


@pytest.mark.parametrize(
    ("options", "function"),
    [
        ({"kernel_size": 1}, "pointwise"),
        ({"kernel_size": 1, "strides": 2, "padding": "valid"}, "pointwise"),
        ({"kernel_size": 3, "padding": "same"}, "convolve_3x3"),
        ({"kernel_size": 3, "padding": "same", "strides": 2}, None),
        ({"kernel_size": 3, "padding": "valid"}, None),
        ({"kernel_size": 7, "padding": "same"}, None),
    ],
)
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float32"])
def test_layer_gives_the_numbers_of_keras(options, function, dtype, monkeypatch):
    calls = []
    for name in ("pointwise", "convolve_3x3"):
        original = getattr(convolution, name)
        monkeypatch.setattr(
            convolution, name, lambda *args, n=name, o=original: (calls.append(n), o(*args))[1]
        )
    ours, theirs = (
        cls(filters=16, dtype=dtype, use_bias=False, **options)
        for cls in (convolution.Conv2D, keras.layers.Conv2D)
    )
    pixels = random((2, 6, 6, 256), 0, tf.bfloat16 if dtype == "mixed_bfloat16" else tf.float32)
    for layer in (ours, theirs):
        layer.build(pixels.shape)
    theirs.set_weights(ours.get_weights())
    got, expected = (with_gradients(layer, pixels)[:2] for layer in (ours, theirs))
    assert calls == ([function] if function and dtype == "mixed_bfloat16" else [])
    for value, known in zip(got, expected, strict=True):
        tolerance = 1e-6 if dtype == "float32" else 2**-6
        np.testing.assert_allclose(
            value, known, rtol=tolerance, atol=tolerance * np.abs(known).max()
        )


def test_layer_has_the_name_and_weights_of_keras_own():
    assert convolution.Conv2D.__name__ == keras.layers.Conv2D.__name__
    layer = convolution.Conv2D(4, 3, name="conv")
    assert convolution.Conv2D.from_config(layer.get_config()).get_config() == layer.get_config()
