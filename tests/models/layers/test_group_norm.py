import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers.group_norm import GroupNormalization

SHAPE = (4, 6, 10, 12)
GROUPS = 3
PIXELS = np.random.default_rng(0).normal(1.0, 3.0, SHAPE).astype(np.float32)
UPSTREAM = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def built(cls, dtype="float32", **kwargs):
    layer = cls(
        GROUPS,
        dtype=dtype,
        gamma_initializer=keras.initializers.RandomUniform(0.5, 2.0, seed=1),
        beta_initializer=keras.initializers.RandomUniform(-1.0, 1.0, seed=2),
        **kwargs,
    )
    layer.build((None, None, None, SHAPE[-1]))
    return layer


def everything(layer, pixels=PIXELS):
    """Outputs and the gradients with respect to inputs, gamma and beta."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, SHAPE[-1]])])
    def run(pixels):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = layer(pixels)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * UPSTREAM)
        return outputs, *tape.gradient(loss, [pixels, layer.gamma.value, layer.beta.value])

    names = ("outputs", "by_inputs", "by_gamma", "by_beta")
    return {
        name: np.asarray(tf.cast(value, tf.float32))
        for name, value in zip(names, run(pixels), strict=True)
    }


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 3e-6), ("mixed_bfloat16", 2**-6), ("mixed_float16", 2**-9)]
)
def test_layer_gives_the_numbers_of_keras(dtype, tolerance):
    expected, got = (
        everything(built(cls, dtype))
        for cls in (keras.layers.GroupNormalization, GroupNormalization)
    )
    for name, values in expected.items():
        assert np.abs(values).max() > 0.1
        assert np.abs(got[name] - values).max() <= tolerance * np.abs(values).max(), name


def test_features_far_from_zero_keep_their_digits():
    # Their squares differ in the last digits of float32 only.
    far = everything(built(GroupNormalization), PIXELS / 64 + 1000.0)
    near = everything(
        built(GroupNormalization), (PIXELS / 64 + np.float32(1000.0)) - np.float32(1000.0)
    )
    np.testing.assert_allclose(far["outputs"], near["outputs"], atol=0.02)


def test_a_patch_is_normalized_by_itself():
    layer = built(GroupNormalization)
    whole = np.asarray(layer(PIXELS))
    for number in range(len(PIXELS)):
        np.testing.assert_allclose(
            whole[number : number + 1], layer(PIXELS[number : number + 1]), atol=1e-6
        )


def test_other_settings_are_keras_own():
    flat = PIXELS.reshape(-1, SHAPE[-1])
    kwargs = {"scale": False}
    for pixels in (flat, PIXELS):
        layers = [
            cls(GROUPS, **kwargs) for cls in (keras.layers.GroupNormalization, GroupNormalization)
        ]
        np.testing.assert_array_equal(*(np.asarray(layer(pixels)) for layer in layers))
