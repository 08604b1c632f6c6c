import keras
import numpy as np
import pytest

from models.optimization.adamw import FusedAdamW
from models.optimization.optimizers import Lars
from models.optimization.pacing import Pace

NUM_STEPS, FIRST_STEP, FACTOR = 6, 2, 0.5
GRADIENTS = np.random.default_rng(0).normal(size=(NUM_STEPS, 3, 4)).astype(np.float32)


def trajectory(optimizer, gradients, num_variables=2):
    """Each variable's values after each step."""
    variables = [
        keras.Variable(np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4))
        for _ in range(num_variables)
    ]
    optimizer.build(variables)
    values = []
    for gradient in gradients:
        optimizer.apply([gradient] * num_variables, variables)
        values.append([variable.numpy() for variable in variables])
    return np.array(values)


@pytest.mark.parametrize("make", [FusedAdamW, Lars])
def test_variable_waits_untouched_and_then_moves_as_by_an_optimizer_that_starts_there(make):
    optimizer = make(0.1, decay=0.1, paces=[Pace(), Pace(FACTOR, FIRST_STEP)])
    got = trajectory(optimizer, GRADIENTS)
    start = np.linspace(-1.0, 2.0, 12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(got[:FIRST_STEP, 1], [start] * FIRST_STEP)
    np.testing.assert_array_equal(got[:, 0], trajectory(make(0.1, decay=0.1), GRADIENTS)[:, 0])
    later = trajectory(make(0.1 * FACTOR, decay=0.1), GRADIENTS[FIRST_STEP:])
    np.testing.assert_allclose(got[FIRST_STEP:, 1], later[:, 1], rtol=1e-6)
    assert np.abs(got[-1, 1] - start).max() > 1e-5


@pytest.mark.parametrize("make", [FusedAdamW, Lars])
def test_infinite_gradient_before_the_start_leaves_no_trace(make):
    gradients = GRADIENTS.copy()
    gradients[0] = np.inf
    got = trajectory(make(0.1, paces=[Pace(1.0, 1)]), gradients, num_variables=1)
    np.testing.assert_allclose(
        got[1:], trajectory(make(0.1), gradients[1:], num_variables=1), rtol=1e-6
    )


@pytest.mark.parametrize("make", [FusedAdamW, Lars])
def test_paces_survive_the_config_and_must_fit_the_variables(make):
    optimizer = make(0.1, paces=[Pace(0.25, 3)])
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert copy.get_config() == optimizer.get_config()
    assert copy.get_config()["paces"] == [[0.25, 3]]
    with pytest.raises(ValueError, match="paces must be one for each of the 2 variables, got 1"):
        trajectory(copy, GRADIENTS)
