import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import OptimizerConfig
from models.optimization import optimizers
from models.training import distribution, step_log, training
from tests.data.faults.watched_training import KilledError, Watch


def line_model():
    """One weight w, loss w**2: what the loop does can be followed by hand."""
    inputs = keras.Input((1,))
    return keras.Model(
        inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs)
    )


def run(
    tmp_path,
    compute_loss,
    model,
    optimizer=None,
    batch=None,
    on_step=None,
    checkpoint_dir=None,
    **sizes,
):
    batch = batch or {"x": np.ones((1, 1), np.float32)}
    return training.train(
        tf.distribute.get_strategy(),
        training.Fit(
            model=model,
            compute_loss=compute_loss,
            optimizer=optimizer or keras.optimizers.SGD(0.25),
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            **({"num_steps": 4} | sizes),
        ),
        log_dir=str(tmp_path),
        checkpoint_dir=checkpoint_dir,
        on_step=on_step,
    )


def logged(log_dir):
    """(tag, step) of all events of the training, in the order in which they were written.

    Their files' names tell it only by the second: the writers of one second are
    counted, and 10 sorts before 9.
    """
    events = [
        event
        for path in (log_dir / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
    ]
    events.sort(key=lambda event: event.wall_time)
    return [(value.tag, event.step) for event in events for value in event.summary.value]


def test_loop_updates_reports_and_logs_every_step(tmp_path):
    model, calls = line_model(), []
    final = run(
        tmp_path,
        lambda b: tf.reduce_sum(model(b["x"]) ** 2),
        model,
        on_step=lambda *call: calls.append(call),
    )
    # w halves with each step: losses 1, 1/4, 1/16, 1/64.
    losses = [4.0**-step for step in range(4)]
    assert calls == [(step + 1, 4, {"loss": pytest.approx(losses[step])}) for step in range(4)]
    assert final == pytest.approx(np.mean(losses))
    assert float(model.weights[0].numpy()[0, 0]) == pytest.approx(1 / 16)
    for tag in ("loss", "learning_rate"):
        assert [step for name, step in logged(tmp_path) if name == tag] == [1, 2, 3, 4]


def test_final_loss_is_the_mean_of_the_last_ten_steps(tmp_path):
    model = line_model()
    final = run(tmp_path, lambda b: tf.reduce_sum(model(b["x"]) ** 2), model, num_steps=13)
    assert final == pytest.approx(np.mean([4.0**-step for step in range(3, 13)]), rel=1e-4)


def test_loss_that_is_not_finite_stops_the_training_at_once(tmp_path):
    model, calls = line_model(), []
    with pytest.raises(
        step_log.NonFiniteLossError, match="loss must be finite, got nan at step 3 of 9"
    ):
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


def ids(*names):
    return {"x": np.ones((len(names), 1), np.float32), "patch_id": np.array(names)}


@pytest.mark.parametrize("with_checkpoints", [False, True])
def test_error_names_the_patches_of_the_batch_and_writes_them_all_to_a_file(
    tmp_path, with_checkpoints
):
    model, names = line_model(), [f"{index:020x}" for index in range(7)]
    folder = tmp_path / "kept" if with_checkpoints else tmp_path
    options = {"checkpoint_dir": str(folder)} if with_checkpoints else {}
    with pytest.raises(step_log.NonFiniteLossError) as caught:
        run(
            tmp_path,
            lambda b: tf.reduce_sum(model(b["x"])) * np.inf,
            model,
            batch=ids(*names),
            **options,
        )
    path = folder / "stopped_at_step_1.txt"
    assert str(caught.value) == (
        "loss must be finite, got inf at step 1 of 4 (learning rate 0.25); its 7 patches are in "
        f"{path}: {', '.join(names[:5])}, ..."
    )
    assert path.read_text().split() == names


def test_batch_without_a_valid_pair_stops_the_training(tmp_path):
    model = line_model()

    def compute_loss(batch):
        return {
            "loss": 0.0 * tf.reduce_sum(model(batch["x"])),
            "valid_pair_fraction": tf.constant(0.0),
        }

    with pytest.raises(
        step_log.NoValidPairError,
        match=r"valid pixels in every sensor, got none at step 1 of 4 .*: a, b$",
    ):
        run(tmp_path, compute_loss, model, batch=ids("a", "b"))


def test_weights_that_are_no_numbers_are_neither_kept_nor_returned(tmp_path):
    model = line_model()

    def root_of_zero(batch):
        """The loss is 0, its gradient infinite."""
        weight = tf.reduce_sum(model(batch["x"]))
        return tf.sqrt(weight - tf.stop_gradient(weight))

    with pytest.raises(
        step_log.NonFiniteLossError, match=r"weights must be finite.* at step 1 of 1"
    ):
        run(
            tmp_path,
            root_of_zero,
            model,
            num_steps=1,
            checkpoint_dir=str(tmp_path / "kept"),
        )
    assert not (tmp_path / "kept").exists()


def test_check_sees_the_mean_loss_and_may_end_the_run_before_the_step_is_kept(tmp_path):
    model, seen = line_model(), []

    def check(step, loss):
        seen.append((step, loss))
        if step == 4:
            raise RuntimeError("collapsed")

    with pytest.raises(RuntimeError, match="collapsed"):
        run(
            tmp_path,
            lambda b: tf.reduce_sum(model(b["x"]) ** 2),
            model,
            num_steps=9,
            check_every=2,
            check=check,
            checkpoint_dir=str(tmp_path / "kept"),
            checkpoint_every=2,
        )
    assert seen == [
        (2, pytest.approx(np.mean([1, 1 / 4]))),
        (4, pytest.approx(np.mean([1, 1 / 4, 1 / 16, 1 / 64]))),
    ]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["step-000000002"]


NUM_STEPS = 12


def attempt(tmp_path, log_name, kill_at=None, checkpoint_every=3):
    """A training with all kinds of state: slots, schedule, statistics, dropout seed, data by step.

    The mean loss, the losses by step, the variables.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dropout(0.3)(hidden)))
    watch = Watch(kill_at)

    def batch_of(step):
        x = tf.random.stateless_normal([16, 4], tf.stack([tf.constant(7, tf.int64), step]))
        return {"x": x, "y": tf.reduce_sum(x**2, axis=1, keepdims=True)}

    mean = training.train(
        tf.distribute.get_strategy(),
        training.Fit(
            model=model,
            compute_loss=lambda b: tf.reduce_mean((model(b["x"], training=True) - b["y"]) ** 2),
            optimizer=optimizers.make_optimizer(OptimizerConfig(learning_rate=0.05), NUM_STEPS),
            dataset=lambda first_step: tf.data.Dataset.counter(first_step).map(batch_of),
            num_steps=NUM_STEPS,
            checkpoint_every=checkpoint_every,
        ),
        log_dir=str(tmp_path / log_name),
        on_step=watch,
        checkpoint_dir=str(tmp_path / "kept") if checkpoint_every else None,
    )
    return mean, watch.losses, [variable.numpy() for variable in model.variables]


def test_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, caplog):
    expected = attempt(tmp_path, "undisturbed", checkpoint_every=0)
    with pytest.raises(KilledError):
        attempt(tmp_path, "first", kill_at=8)
    kept = ["step-000000003", "step-000000006"]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == kept
    with pytest.raises(KilledError):
        attempt(tmp_path, "second", kill_at=11)
    with caplog.at_level("INFO", logger="terrapair.training"):
        mean, losses, variables = attempt(tmp_path, "second")
    assert caplog.messages == ["resumed after step 9 of 12"]
    assert list(losses) == [10, 11, 12]
    assert losses == pytest.approx({step: expected[1][step] for step in losses}, rel=1e-6)
    assert mean == pytest.approx(expected[0], rel=1e-6)
    for got, value in zip(variables, expected[2], strict=True):
        np.testing.assert_allclose(got, value, rtol=1e-6, atol=1e-7)
    # Steps 1 to 6 are known from another folder only, 10 was taken twice in this one.
    assert [step for tag, step in logged(tmp_path / "second") if tag == "loss"] == list(
        range(1, 13)
    )

    # Killed once more, after its last step: nothing is taken again.
    again, losses, restored = attempt(tmp_path, "second")
    assert losses == {}
    assert again == mean
    for got, value in zip(restored, variables, strict=True):
        np.testing.assert_array_equal(got, value)


class ReadingError(Exception):
    """Stands for what the loop does with its batches."""


@pytest.mark.parametrize(("num_steps", "is_tuned"), [(999, False), (1000, True)])
def test_only_a_long_training_tunes_how_it_reads(tmp_path, monkeypatch, num_steps, is_tuned):
    found = []

    def distribute(strategy, dataset):
        found.append(dataset.options().autotune.enabled)
        raise ReadingError

    monkeypatch.setattr(training, "_distribute", distribute)
    with pytest.raises(ReadingError):
        run(tmp_path, lambda batch: 0.0, line_model(), num_steps=num_steps)
    # None is TensorFlow's default, which tunes.
    assert found == [None if is_tuned else False]


def test_batch_must_be_shared_evenly_by_the_replicas():
    class TwoReplicas:
        num_replicas_in_sync = 2

    distribution.check_divisible(6, TwoReplicas())
    with pytest.raises(ValueError, match="multiple of the 2 replicas, got 7"):
        distribution.check_divisible(7, TwoReplicas())


def test_one_process_has_one_strategy():
    assert distribution.get_strategy() is distribution.get_strategy()
