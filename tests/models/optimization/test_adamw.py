import keras
import numpy as np
import pytest
import tensorflow as tf

from models.optimization.adamw import FusedAdamW

GRADIENTS = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)


def weights_after(optimizer):
    starts = (("kernel", 2.0), ("bias", -1.0))
    variables = [
        keras.Variable(np.full((3, 5), start, np.float32), name=name) for name, start in starts
    ]
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(variables)
    for gradient in GRADIENTS:
        optimizer.apply([gradient, 10.0 * gradient], variables)
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_numbers_are_those_of_keras(decay):
    rate = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=5)
    expected = weights_after(keras.optimizers.AdamW(rate, weight_decay=decay, beta_2=0.99))
    got = weights_after(FusedAdamW(rate, decay=decay, beta_2=0.99))
    for ours, theirs, start in zip(got, expected, (2.0, -1.0), strict=True):
        assert np.abs(theirs - start).max() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=2e-6)


def test_first_step_by_hand():
    variable = keras.Variable([2.0, -4.0], name="kernel")
    optimizer = FusedAdamW(0.5, decay=0.1)
    optimizer.build([variable])
    optimizer.apply([np.array([3.0, -7.0], np.float32)], [variable])
    # Decay by 0.5 x 0.1, then a step of the rate against the sign of the gradient,
    # whatever its size.
    np.testing.assert_allclose(variable, [2.0 * 0.95 - 0.5, -4.0 * 0.95 + 0.5], rtol=1e-5)


def test_optimizer_survives_its_config():
    optimizer = FusedAdamW(0.25, decay=0.125, beta_1=0.8, name="mine")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(copy) is FusedAdamW
    assert copy.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("paces", "num_powers"), [((), 2), (((1.0, 0), (0.5, 2), (1.0, 0), (0.5, 2)), 4)]
)
def test_a_step_computes_its_scalars_once_for_all_variables_of_a_pace(paces, num_powers):
    variables = [keras.Variable(np.ones((2, 2), np.float32), name="kernel") for _ in range(4)]
    optimizer = FusedAdamW(0.1, decay=0.1, paces=paces)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(gradient):
        optimizer.apply([gradient] * 4, variables)

    graph = step.get_concrete_function(tf.TensorSpec([2, 2], tf.float32)).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 4
    # The powers of both betas.
    assert kinds.count("Pow") == num_powers
