import keras
import numpy as np
import pytest
import tensorflow as tf

from models import training
from models.config import OptimizerConfig


def line_model():
    """One weight w, loss w**2: what the loop does can be followed by hand."""
    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs))


def run(tmp_path, compute_loss, model, num_steps=4, on_step=None, optimizer=None):
    return training.train(
        strategy=tf.distribute.get_strategy(),
        model=model,
        compute_loss=compute_loss,
        optimizer=optimizer or keras.optimizers.SGD(0.25),
        dataset=tf.data.Dataset.from_tensors({"x": np.ones((1, 1), np.float32)}).repeat(),
        num_steps=num_steps,
        log_dir=str(tmp_path),
        on_step=on_step,
    )


def test_loop_updates_reports_and_logs_every_step(tmp_path):
    model, calls = line_model(), []
    final = run(tmp_path, lambda b: tf.reduce_sum(model(b["x"]) ** 2), model, on_step=lambda *call: calls.append(call))
    # w halves with each step: losses 1, 1/4, 1/16, 1/64.
    losses = [4.0**-step for step in range(4)]
    assert calls == [(step + 1, 4, {"loss": pytest.approx(losses[step])}) for step in range(4)]
    assert final == pytest.approx(np.mean(losses))
    assert float(model.weights[0].numpy()[0, 0]) == pytest.approx(1 / 16)
    (events,) = (tmp_path / "train").iterdir()
    tags = [
        (value.tag, event.step)
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert [step for tag, step in tags if tag == "loss"] == [1, 2, 3, 4]
    assert [step for tag, step in tags if tag == "learning_rate"] == [1, 2, 3, 4]


def test_final_loss_is_the_mean_of_the_last_ten_steps(tmp_path):
    model = line_model()
    final = run(tmp_path, lambda b: tf.reduce_sum(model(b["x"]) ** 2), model, num_steps=13)
    assert final == pytest.approx(np.mean([4.0**-step for step in range(3, 13)]), rel=1e-4)


def test_loss_that_is_not_finite_stops_the_training_at_once(tmp_path):
    model, calls = line_model(), []
    with pytest.raises(training.NonFiniteLossError, match="loss must be finite, got nan at step 3 of 9"):
        run(
            tmp_path,
            # w = 1, 1/2, 1/4: the square root of w - 0.3 is NaN from the third step on.
            lambda b: tf.reduce_sum(model(b["x"]) ** 2)
            + 1e-6 * tf.sqrt(tf.stop_gradient(tf.reduce_sum(model(b["x"]))) - 0.3),
            model,
            num_steps=9,
            on_step=lambda *call: calls.append(call),
        )
    assert len(calls) == 2


def test_rate_rises_to_its_peak_and_falls_to_zero():
    optimizer = training.make_optimizer(OptimizerConfig(learning_rate=0.1, warmup_fraction=0.2), num_steps=50)
    rates = [float(optimizer._learning_rate(step)) for step in range(51)]
    assert rates[0] == pytest.approx(0.1 / 11)
    assert int(np.argmax(rates)) == 10
    assert rates[10] == pytest.approx(0.1)
    assert rates[30] == pytest.approx(0.05, rel=1e-3)
    assert rates[50] == pytest.approx(0.0, abs=1e-8)


def test_weights_decay_and_biases_do_not(tmp_path):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", bias_initializer="ones")(inputs))
    optimizer = training.make_optimizer(OptimizerConfig(learning_rate=0.1, weight_decay=0.5, warmup_fraction=0.0), 1)
    run(tmp_path, lambda b: 0.0 * tf.reduce_sum(model(b["x"])), model, num_steps=1, optimizer=optimizer)
    kernel, bias = (weight.numpy().item() for weight in model.weights)
    assert kernel == pytest.approx(1.0 - 0.1 * 0.5)
    assert bias == 1.0


def test_batch_must_be_shared_evenly_by_the_replicas():
    class TwoReplicas:
        num_replicas_in_sync = 2

    training.check_divisible(6, TwoReplicas())
    with pytest.raises(ValueError, match="multiple of the 2 replicas, got 7"):
        training.check_divisible(7, TwoReplicas())


def test_one_process_has_one_strategy():
    assert training.get_strategy() is training.get_strategy()
