import keras
import numpy as np
import pytest
import tensorflow as tf

from models.objectives.chunks import by_row_chunks
from models.optimization.optimizers import LossScaled
from models.training import training
from models.training.steps import TwoStageLoss

NUM_ROWS = 8


def model_with(*layers):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    outputs = inputs
    for layer in (keras.layers.Dense(6, activation="tanh"), *layers, keras.layers.Dense(3)):
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def contrastive(rows):
    """Every row against every other one, so that no part of the batch knows its own loss."""
    logits = tf.matmul(rows, rows, transpose_b=True)
    return {
        "loss": tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1)),
        "largest": tf.reduce_max(logits),
    }


def take_steps(tmp_path, model, num_micro_batches, num_steps=2, encode=None, optimizer=None):
    """Gradients of all steps together (SGD with rate 1), moving statistics and the last scalars."""
    before = [weight.numpy() for weight in model.trainable_variables]
    told = {}
    training.train(
        tf.distribute.get_strategy(),
        training.Fit(
            model=model,
            compute_loss=TwoStageLoss(
                encode=encode or (lambda batch: {"rows": model(batch["x"], training=True)}),
                loss=lambda outputs: contrastive(outputs["rows"]),
                num_micro_batches=num_micro_batches,
            ),
            optimizer=optimizer or keras.optimizers.SGD(0.1),
            dataset=lambda first_step: tf.data.Dataset.from_tensors(
                {"x": np.random.default_rng(0).normal(size=(NUM_ROWS, 4)).astype(np.float32)}
            ).repeat(),
            num_steps=num_steps,
        ),
        log_dir=str(tmp_path),
        on_step=lambda step, num_steps, scalars: told.update(scalars),
    )
    moved = np.concatenate(
        [
            np.ravel(old - new.numpy())
            for old, new in zip(before, model.trainable_variables, strict=True)
        ]
    )
    return moved, [weight.numpy() for weight in model.non_trainable_variables], told


def frozen_batch_norm():
    return keras.layers.BatchNormalization(
        trainable=False, moving_mean_initializer=keras.initializers.Constant(0.3)
    )


@pytest.mark.parametrize("norm", [frozen_batch_norm, lambda: keras.layers.GroupNormalization(3)])
def test_parts_take_the_steps_of_the_whole(tmp_path, norm):
    whole, parts = (take_steps(tmp_path, model_with(norm()), num) for num in (1, 4))
    assert np.abs(whole[0]).max() > 1e-2
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5, atol=1e-7)
    assert parts[2] == pytest.approx(whole[2], rel=1e-6)
    assert set(parts[2]) == {"loss", "largest"}


def test_batch_norm_is_exact_for_statistics_of_the_parts(tmp_path):
    """Compare with one graph of the whole batch that normalizes each quarter by itself."""
    in_parts = take_steps(tmp_path, model_with(keras.layers.BatchNormalization(momentum=0.5)), 4)
    model = model_with(keras.layers.BatchNormalization(momentum=0.5))
    quarters = take_steps(
        tmp_path,
        model,
        1,
        encode=lambda batch: {
            "rows": tf.concat([model(x, training=True) for x in tf.split(batch["x"], 4)], axis=0)
        },
    )
    undivided = take_steps(tmp_path, model_with(keras.layers.BatchNormalization(momentum=0.5)), 1)
    np.testing.assert_allclose(in_parts[0], quarters[0], rtol=1e-4, atol=1e-6)
    # The first pass must leave no trace in the moving statistics.
    for one, two in zip(in_parts[1], quarters[1], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)
    # And it is another loss than that of the undivided batch.
    assert np.abs(in_parts[0] - undivided[0]).max() > 1e-3


def test_second_pass_drops_out_what_the_first_one_did(tmp_path):
    """Both passes must drop the same units: else the gradient belongs to no function."""
    in_parts = take_steps(tmp_path, model_with(keras.layers.Dropout(0.5, seed=5)), 4, num_steps=1)
    model = model_with(keras.layers.Dropout(0.5, seed=5))
    quarters = take_steps(
        tmp_path,
        model,
        1,
        num_steps=1,
        encode=lambda batch: {
            "rows": tf.concat([model(x, training=True) for x in tf.split(batch["x"], 4)], axis=0)
        },
    )
    np.testing.assert_allclose(in_parts[0], quarters[0], rtol=1e-4, atol=1e-6)
    assert in_parts[2]["loss"] == pytest.approx(quarters[2]["loss"], rel=1e-6)


@pytest.mark.parametrize("num_micro_batches", [1, 4])
def test_scaled_loss_takes_the_same_steps(tmp_path, num_micro_batches):
    plain = take_steps(tmp_path, model_with(), 1)
    scaled = take_steps(
        tmp_path, model_with(), num_micro_batches, optimizer=LossScaled(keras.optimizers.SGD(0.1))
    )
    np.testing.assert_allclose(scaled[0], plain[0], rtol=1e-5, atol=1e-7)
    assert scaled[2] == pytest.approx(plain[2], rel=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 20])
def test_chunks_of_any_size_give_losses_and_gradients_of_the_whole(chunk_size):
    rng = np.random.default_rng(1)
    rows = tf.constant(rng.normal(size=(7, 3)), tf.float32)
    shared = tf.constant(rng.normal(size=(5, 3)), tf.float32)
    upstream = tf.constant(rng.normal(size=7), tf.float32)

    def losses(positions, rows, shared):
        logits = tf.matmul(rows[0], shared[0], transpose_b=True)
        return tf.reduce_logsumexp(logits, axis=1) * (1.0 + tf.cast(positions, tf.float32))

    results = []
    for size in (None, chunk_size):
        with tf.GradientTape() as tape:
            tape.watch([rows, shared])
            result = by_row_chunks(losses, [rows], [shared], size)
        results.append([result, *tape.gradient(result, [rows, shared], output_gradients=upstream)])
    for whole, chunked in zip(*results, strict=True):
        np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)
