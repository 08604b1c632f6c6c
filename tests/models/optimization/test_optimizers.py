import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.dual_encoder import ProjectionHead
from models.objectives.registry import make_objective
from models.optimization.optimizers import Lars, LossScaled, WarmupCosine, make_optimizer


def test_rate_rises_to_its_peak_and_falls_to_zero():
    schedule = WarmupCosine(0.1, 10, 50)
    rates = [float(schedule(step)) for step in range(51)]
    assert rates[0] == pytest.approx(0.1 / 11)
    assert int(np.argmax(rates)) == 10
    assert rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05, rel=1e-3)
    assert rates[50] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("num_warmup_steps", [0, 7])
def test_rate_is_that_of_the_schedule_of_keras(num_warmup_steps):
    keras_schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.2 / (num_warmup_steps + 1),
        decay_steps=20 - num_warmup_steps,
        warmup_target=0.2,
        warmup_steps=num_warmup_steps,
    )
    schedule = WarmupCosine(0.2, num_warmup_steps, 20)
    for step in range(21):
        assert float(schedule(step)) == pytest.approx(float(keras_schedule(step)), abs=1e-7)


def dense_layer():
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(3, bias_initializer="ones")
    layer.build((None, 2))
    return layer


def gradients(num_steps):
    rng = np.random.default_rng(0)
    return [
        [rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)]
        for _ in range(num_steps)
    ]


def applied(optimizer, steps):
    layer = dense_layer()
    optimizer.build(layer.trainable_variables)
    for step in steps:
        optimizer.apply([tf.constant(gradient) for gradient in step], layer.trainable_variables)
    return [variable.numpy() for variable in layer.trainable_variables]


def test_weights_decay_and_biases_do_not():
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, warmup_fraction=0.0)
    kernel, bias = applied(
        make_optimizer(config, 1), [[np.zeros((2, 3), np.float32), np.zeros(3, np.float32)]]
    )
    np.testing.assert_allclose(kernel, (1 - 0.1 * 0.5) * dense_layer().kernel.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(bias, np.ones(3))


def test_lars_is_that_of_the_paper():
    config = OptimizerConfig(
        optimizer="lars", learning_rate=2.0, weight_decay=0.01, warmup_fraction=0.3
    )
    steps = gradients(7)
    kernel, bias = (
        variable.numpy().astype(np.float64) for variable in dense_layer().trainable_variables
    )
    momenta = [np.zeros_like(kernel), np.zeros_like(bias)]
    schedule = WarmupCosine(2.0, 2, 7)
    for number, (kernel_gradient, bias_gradient) in enumerate(steps):
        rate = float(schedule(number))
        size, slope = np.linalg.norm(kernel), np.linalg.norm(kernel_gradient)
        local = 0.001 * size / (slope + 0.01 * size)
        momenta[0] = 0.9 * momenta[0] + rate * local * (kernel_gradient + 0.01 * kernel)
        momenta[1] = 0.9 * momenta[1] + rate * bias_gradient
        kernel, bias = kernel - momenta[0], bias - momenta[1]
    got = applied(make_optimizer(config, 7), steps)
    np.testing.assert_allclose(got[0], kernel, rtol=1e-5)
    np.testing.assert_allclose(got[1], bias, rtol=1e-5)


def test_lars_moves_weights_that_are_zero():
    variable = keras.Variable(np.zeros(2, np.float32))
    optimizer = Lars(0.5)
    optimizer.build([variable])
    optimizer.apply([tf.constant([1.0, -2.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [-0.5, 1.0])


@pytest.mark.parametrize("shape", [(), (1,)])
def test_lars_moves_a_single_number_as_adam_does_at_its_own_rate(shape):
    config = OptimizerConfig(
        optimizer="lars", learning_rate=4.8, lars_scalar_rate=0.01, warmup_fraction=0.3
    )
    number, twin = (keras.Variable(np.full(shape, -2.0, np.float32), name="bias") for _ in "ab")
    lars, adam = make_optimizer(config, 7), keras.optimizers.Adam(WarmupCosine(0.01, 2, 7))
    for optimizer, variable in ((lars, number), (adam, twin)):
        optimizer.build([variable])
        # As large as the gradient of "sigmoid" with thousands of negatives.
        for gradient in (300.0, 2000.0, -40.0, 0.0, 7.0):
            optimizer.apply([tf.constant(np.full(shape, gradient, np.float32))], [variable])
    assert abs(float(number.numpy().item()) + 2.0) > 0.005
    np.testing.assert_allclose(number.numpy(), twin.numpy(), rtol=1e-5)


def heads_and_objective(objective):
    """Two heads, an objective with a learned temperature, and a loss of 64 true pairs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    ground = rng.normal(size=(64, 8))
    sides = [
        (ground @ rng.normal(size=(8, 12)) + 0.3 * rng.normal(size=(64, 12))).astype(np.float32)
        for _ in "ab"
    ]
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=8),
        num_steps=1,
        objective=objective,
        learn_temperature=True,
        global_batch_size=64,
    )
    made = make_objective(config, 12)
    heads = [ProjectionHead(features_dim=12, embedding_dim=8) for _ in "ab"]
    weights = {"weight": tf.ones(64), "valid": tf.ones(64)}

    def loss():
        embeddings = {"s1": heads[0](sides[0]), "s2": heads[1](sides[1])}
        return tf.reduce_mean(made.losses_and_figures(embeddings | weights)[0])

    return [v for model in (*heads, made) for v in model.trainable_variables], loss


@pytest.mark.parametrize("objective", ["sigmoid", "multimodal"])
def test_lars_learns_beside_a_temperature_and_a_bias(objective):
    # The rate that SimCLR asks of 4,096 pairs.
    config = OptimizerConfig(optimizer="lars", learning_rate=4.8, weight_decay=1e-6)
    variables, loss = heads_and_objective(objective)
    assert sum(variable.shape == () for variable in variables) == 1 + (objective == "sigmoid")
    optimizer = make_optimizer(config, 40)
    optimizer.build(variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss()
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    losses = [float(step()) for _ in range(40)]
    assert max(losses) < 1.5 * losses[0]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_scaled_loss_takes_the_same_steps_without_those_that_overflow(name):
    config = OptimizerConfig(optimizer=name, learning_rate=0.1)
    steps = gradients(4)
    expected = applied(make_optimizer(config, 9), steps)
    scaled = make_optimizer(config, 9, "mixed_float16")
    assert isinstance(scaled, LossScaled)
    scale = float(scaled.scale_loss(tf.constant(1.0)))
    assert scale == 2.0**15
    overflow = [np.full((2, 3), np.inf, np.float32), np.ones(3, np.float32)]
    # The first two at the first scale, then one that overflows, then two at half of it.
    scales = [scale, scale, 1.0, scale / 2, scale / 2]
    sequence = [*steps[:2], overflow, *steps[2:]]
    got = applied(scaled, [[g * s for g in step] for step, s in zip(sequence, scales, strict=True)])
    assert int(scaled.iterations) == 4
    assert float(scaled.scale_loss(tf.constant(1.0))) == scale / 2
    for one, two in zip(expected, got, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lars"])
def test_optimizer_survives_its_config(name):
    optimizer = make_optimizer(
        OptimizerConfig(optimizer=name, learning_rate=0.3), 10, "mixed_float16"
    )
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    copy.inner_optimizer.exclude_from_weight_decay(var_names=["bias"])
    if name == "lars":
        assert copy.inner_optimizer.scalar_factor == pytest.approx(1e-3 / 0.3)
    steps = gradients(2)
    for one, two in zip(applied(optimizer, steps), applied(copy, steps), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-6)


def test_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="optimizer must be adamw or lars, got 'sgd'"):
        OptimizerConfig(optimizer="sgd")
