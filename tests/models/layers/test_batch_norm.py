import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers.batch_norm import BatchNormalization

SHAPE = (4, 6, 10, 8)
PIXELS = np.random.default_rng(0).normal(1.0, 3.0, SHAPE).astype(np.float32)
UPSTREAM = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def built(cls, dtype="float32", **kwargs):
    layer = cls(
        dtype=dtype,
        momentum=0.9,
        gamma_initializer=keras.initializers.RandomUniform(0.5, 2.0, seed=1),
        beta_initializer=keras.initializers.RandomUniform(-1.0, 1.0, seed=2),
        moving_mean_initializer=keras.initializers.RandomUniform(-1.0, 1.0, seed=3),
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2.0, seed=4),
        **kwargs,
    )
    layer.build((None, None, None, SHAPE[-1]))
    return layer


def everything(layer, training):
    """Return outputs, gradients by inputs, gamma and beta, and the new moving statistics."""

    @tf.function
    def run(pixels):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = layer(pixels, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * UPSTREAM)
        return outputs, *tape.gradient(loss, [pixels, layer.gamma.value, layer.beta.value])

    names = ("outputs", "by_inputs", "by_gamma", "by_beta", "moving_mean", "moving_variance")
    values = (*run(tf.constant(PIXELS)), layer.moving_mean, layer.moving_variance)
    return {
        name: np.asarray(keras.ops.cast(value, "float32"))
        for name, value in zip(names, values, strict=True)
    }


# Half precision keeps 8 or 11 bits; Keras rounds once less, since it normalizes a
# float32 copy.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 2e-6), ("mixed_bfloat16", 2**-7), ("mixed_float16", 2**-10)],
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("trainable", [True, False])
def test_fused_layer_gives_the_numbers_of_keras(dtype, tolerance, training, trainable):
    expected = everything(
        built(keras.layers.BatchNormalization, dtype, trainable=trainable), training
    )
    got = everything(built(BatchNormalization, dtype, trainable=trainable), training)
    for name, values in expected.items():
        assert np.abs(values).max() > 0.1
        assert np.abs(got[name] - values).max() <= tolerance * np.abs(values).max(), name


def test_statistics_are_those_of_the_batch_itself():
    layer = BatchNormalization(momentum=0.0)
    layer(PIXELS, training=True)
    np.testing.assert_allclose(layer.moving_mean, PIXELS.mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, PIXELS.var((0, 1, 2)), rtol=1e-5)


def test_forward_and_backward_pass_are_one_kernel_each():
    layer = built(BatchNormalization, "mixed_bfloat16")

    @tf.function
    def gradient(pixels):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = layer(pixels, training=True)
        return tape.gradient(outputs, pixels)

    graph = gradient.get_concrete_function(tf.TensorSpec(SHAPE, tf.bfloat16)).graph
    on_features = {
        op.type for op in graph.get_operations() if any(out.shape.rank == 4 for out in op.outputs)
    }
    assert {"FusedBatchNormV3", "FusedBatchNormGradV3"} <= on_features
    assert not on_features & {"Mul", "Sub", "SquaredDifference", "Square", "Rsqrt", "Cast"}


@pytest.mark.parametrize("shape", [(16, 8), (4, 10, 8)])
def test_other_ranks_are_keras_own(shape):
    rows = np.random.default_rng(2).normal(2.0, 3.0, shape).astype(np.float32)
    ours, theirs = (
        cls()(rows, training=True) for cls in (BatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_masked_pixels_do_not_count():
    mask = np.zeros(SHAPE[:-1], bool)
    mask[:, :, :5] = True
    layer = BatchNormalization(momentum=0.0)
    layer(PIXELS, training=True, mask=mask)
    np.testing.assert_allclose(
        layer.moving_mean, PIXELS[:, :, :5].mean((0, 1, 2)), rtol=1e-4, atol=1e-5
    )


def test_layer_survives_its_config_and_reads_weights_of_keras_layer(tmp_path):
    def model_of(layer):
        inputs = keras.Input((None, None, SHAPE[-1]))
        return keras.Model(inputs, layer(inputs))

    layer = BatchNormalization(epsilon=1e-5, name="bn")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is BatchNormalization
    assert copy.get_config() == layer.get_config()
    assert copy.synchronized
    old, new = model_of(keras.layers.BatchNormalization(epsilon=1e-5)), model_of(layer)
    old(PIXELS, training=True)
    old.save_weights(tmp_path / "old.weights.h5")
    new.load_weights(tmp_path / "old.weights.h5")
    np.testing.assert_allclose(new(PIXELS), old(PIXELS), rtol=1e-5, atol=1e-5)


def test_published_graph_takes_any_size(tmp_path):
    layer = built(BatchNormalization)
    inputs = keras.Input((None, None, SHAPE[-1]))
    keras.Model(inputs, layer(inputs)).export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    for pixels in (PIXELS, PIXELS[:1, :4, :2]):
        np.testing.assert_allclose(
            served.serve(pixels), layer(pixels, training=False), rtol=1e-6, atol=1e-6
        )
