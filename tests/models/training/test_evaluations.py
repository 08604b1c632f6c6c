"""Evaluations on the way: which step's weights stay, when a training stops, what resumes."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.config import OptimizerConfig
from models.optimization import optimizers
from models.training import step_log, training
from models.training.evaluations import EvalRule, Evaluations
from tests.data.faults.damage import flip
from tests.data.faults.watched_training import KilledError, Watch


def halved(tmp_path, scores, *, every=1, on_step=None, checkpoint_dir=None, **rule):
    """Train one weight that begins at 1 and halves with each step; the scores are given.

    So the weight tells which step is kept: it is 2 ** -step.
    """
    inputs = keras.Input((1,))
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    given = iter(scores)
    evaluations = Evaluations(
        model,
        lambda: {"mean_iou": next(given), "loss": 1.0},
        EvalRule(**({"score": "mean_iou", "every": every, "keeps_best": True} | rule)),
    )
    training.train(
        tf.distribute.get_strategy(),
        training.Fit(
            model=model,
            compute_loss=lambda b: tf.reduce_sum(model(b["x"]) ** 2),
            optimizer=keras.optimizers.SGD(0.25),
            dataset=lambda _: tf.data.Dataset.from_tensors({"x": np.ones((1, 1))}).repeat(),
            num_steps=6,
            evaluations=evaluations,
        ),
        log_dir=str(tmp_path / "logs"),
        checkpoint_dir=checkpoint_dir,
        on_step=on_step,
    )
    return evaluations, round(-math.log2(model.weights[0].numpy().item()))


NAN = math.nan


@pytest.mark.parametrize(
    ("scores", "rule", "evaluated", "kept"),
    [
        pytest.param([0.1, 0.5, 0.3, 0.5, 0.2, 0.4], {}, [1, 2, 3, 4, 5, 6], 2, id="first of two"),
        pytest.param([0.1, 0.2, 0.3], {"every": 2}, [2, 4, 6], 6, id="best is last"),
        pytest.param([0.3, 0.2], {"every": 4}, [4, 6], 4, id="last step is evaluated"),
        pytest.param([0.3, 0.1], {"every": 4, "keeps_best": False}, [4, 6], 6, id="keep last"),
        pytest.param([0.5, 0.4, 0.3], {"patience": 2}, [1, 2, 3], 1, id="patience"),
        pytest.param([0.5, 0.4, 0.6, 0.6, 0.1], {"patience": 2}, [1, 2, 3, 4, 5], 3, id="equal"),
        pytest.param(
            [0.5, 0.4, 0.3, 0.2, 0.1], {"patience": 2, "patient_after": 3}, [1, 2, 3, 4, 5], 1
        ),
        pytest.param([NAN, 0.2, NAN, 0.1, NAN, NAN], {}, [1, 2, 3, 4, 5, 6], 2, id="NaN loses"),
        pytest.param([0.2, NAN, NAN], {"patience": 2}, [1, 2, 3], 1, id="NaN is no better"),
    ],
)
def test_the_earliest_best_step_is_kept(tmp_path, scores, rule, evaluated, kept):
    found, step = halved(tmp_path, scores, **rule)
    assert [one.step for one in found.history] == evaluated
    assert step == found.kept_step == kept


def test_a_score_that_is_never_known_leaves_the_last_step_and_says_so(tmp_path, caplog):
    found, step = halved(tmp_path, [NAN] * 3, every=2)
    assert step == found.kept_step == 6
    assert found.best_weights is None
    (line,) = caplog.messages
    assert line.startswith("mean_iou could not be measured in any of 3 evaluations")
    # Cards and checkpoints are JSON, which has no NaN.
    assert json.loads(json.dumps(found.describe(), allow_nan=False))["history"][0] == {
        "step": 2,
        "score": None,
    }


def test_the_log_says_why_it_stopped_and_what_was_kept(tmp_path, caplog):
    with caplog.at_level("INFO", "terrapair.training"):
        halved(tmp_path, [0.5, 0.4, 0.3], patience=2)
    assert caplog.messages == [
        "stopped after step 3 of 6: no better mean_iou in 2 evaluations",
        "kept step 1 of 6: mean_iou 0.5000, the best of 3 evaluations",
    ]


def test_scores_are_events_and_join_the_progress(tmp_path):
    calls = []
    halved(tmp_path, [0.25, NAN, 0.75], every=2, on_step=lambda *call: calls.append(call))
    shown = [(step, values.get("eval_mean_iou")) for step, _, values in calls]
    assert shown == [(1, None), (2, None), (3, 0.25), (4, 0.25), (5, None), (6, None)]
    events = [
        (value.tag, event.step, tf.make_ndarray(value.tensor).item())
        for path in (tmp_path / "logs" / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag.startswith("eval_")
    ]
    assert [one for one in events if one[0] == "eval_mean_iou"] == [
        ("eval_mean_iou", 2, 0.25),
        ("eval_mean_iou", 6, 0.75),
    ]
    assert [step for tag, step, _ in events if tag == "eval_loss"] == [2, 4, 6]


def test_a_model_of_no_numbers_is_refused_before_it_is_measured(tmp_path):
    """A model of NaN gives all pixels one class, which may well have the best score."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))

    def root_of_zero(batch):
        weight = tf.reduce_sum(model(batch["x"]))
        return tf.sqrt(weight - tf.stop_gradient(weight))

    def measure():
        raise AssertionError("measured")

    with pytest.raises(step_log.NonFiniteLossError, match="weights must be finite"):
        training.train(
            tf.distribute.get_strategy(),
            training.Fit(
                model=model,
                compute_loss=root_of_zero,
                optimizer=keras.optimizers.SGD(0.25),
                dataset=lambda _: tf.data.Dataset.from_tensors({"x": np.ones((1, 1))}).repeat(),
                num_steps=3,
                evaluations=Evaluations(
                    model, measure, EvalRule(score="mean_iou", every=1, keeps_best=True)
                ),
            ),
            log_dir=str(tmp_path),
        )


NUM_STEPS = 12


def attempt(tmp_path, name, kill_at=None, patience=None, is_evaluated=True):
    """A training with statistics, slots and a seed, whose best step is in its middle.

    Its steps with their losses, its variables and its evaluations.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dropout(0.3)(hidden)))
    watch = Watch(kill_at)
    target = tf.random.stateless_normal([8, 4], [1, 1])

    def measure():
        # The output falls with every step, and is nearest to the goal after some.
        return {"score": -abs(float(tf.reduce_mean(model(target, training=False))) + GOAL)}

    evaluations = Evaluations(
        model, measure, EvalRule(score="score", every=2, keeps_best=True, patience=patience)
    )

    def batch_of(step):
        x = tf.random.stateless_normal([16, 4], tf.stack([tf.constant(7, tf.int64), step]))
        return {"x": x}

    training.train(
        tf.distribute.get_strategy(),
        training.Fit(
            model=model,
            compute_loss=lambda b: tf.reduce_mean((model(b["x"], training=True) + 2.0) ** 2),
            optimizer=optimizers.make_optimizer(OptimizerConfig(learning_rate=0.05), NUM_STEPS),
            dataset=lambda first_step: tf.data.Dataset.counter(first_step).map(batch_of),
            num_steps=NUM_STEPS,
            checkpoint_every=3,
            evaluations=evaluations if is_evaluated else None,
        ),
        log_dir=str(tmp_path / name / "logs"),
        on_step=watch,
        checkpoint_dir=str(tmp_path / name / "kept"),
    )
    return watch.losses, [variable.numpy() for variable in model.variables], evaluations


GOAL = 0.72


def is_same(one, two):
    return all(np.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(one, two, strict=True))


def test_a_killed_training_keeps_the_step_that_it_would_have_kept(tmp_path):
    losses, expected, whole = attempt(tmp_path, "whole")
    assert whole.best.step == 6
    without, last, _ = attempt(tmp_path, "without", is_evaluated=False)
    assert losses == without
    assert not is_same(expected, last)
    # Killed before, at and after the best step, each time between two checkpoints.
    for kill_at in (whole.best.step - 1, whole.best.step + 2, NUM_STEPS - 1):
        with pytest.raises(KilledError):
            attempt(tmp_path, "killed", kill_at)
    taken, found, resumed = attempt(tmp_path, "killed")
    assert min(taken) > whole.best.step
    assert [one.step for one in resumed.history] == [one.step for one in whole.history]
    assert resumed.best.step == whole.best.step
    assert is_same(found, expected)
    # Killed while it was exported: nothing is taken or measured again.
    taken, found, again = attempt(tmp_path, "killed")
    assert taken == {}
    assert again.history == resumed.history
    assert is_same(found, expected)


def test_an_attempt_after_an_early_stop_does_not_go_on(tmp_path):
    losses, expected, stopped = attempt(tmp_path, "stopped", patience=1)
    assert max(losses) == stopped.history[-1].step == stopped.best.step + 2 < NUM_STEPS
    taken, found, _ = attempt(tmp_path, "stopped", patience=1)
    assert taken == {}
    assert is_same(found, expected)


def test_an_older_checkpoint_brings_the_best_step_of_its_own_time(tmp_path):
    _, expected, whole = attempt(tmp_path, "whole")
    with pytest.raises(KilledError):
        attempt(tmp_path, "damaged", NUM_STEPS - 1)
    kept = sorted((tmp_path / "damaged" / "kept").glob("step-*"))
    flip(kept[-1] / "variables.data-00000-of-00001", 5)
    taken, found, resumed = attempt(tmp_path, "damaged")
    assert min(taken) == int(kept[0].name[-3:]) + 1
    assert [one.step for one in resumed.history] == [one.step for one in whole.history]
    assert is_same(found, expected)
