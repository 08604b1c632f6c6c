import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import pretrain
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import build_dual_encoder
from models.encoders import build_encoder
from models.health import alarms
from models.health.config import HealthConfig
from models.health.monitor import (
    CollapseError,
    EvalPairs,
    HealthLog,
    HealthMonitor,
    UnhealthyTrainingError,
)
from models.input_pipeline import parse_examples
from models.objectives.registry import make_objective
from models.training import training
from models.training.scaffold import Folders
from models.training.steps import TwoStageLoss


def make_config(num_steps=6, objective="multimodal", **health):
    return PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=16),
        num_steps=num_steps,
        objective=objective,
        global_batch_size=8,
        optimizer=OptimizerConfig(warmup_fraction=0.0),
        health=HealthConfig(**{"check_every": 2, "min_steps": 2, "max_patches": 8, **health}),
    )


@pytest.fixture(scope="module")
def untrained(pairs):
    """A dual encoder that the tests share, and its weights: it is traced once."""
    keras.utils.set_random_seed(0)
    encoders = {
        sensor: build_encoder(make_config().encoder, sensor, pairs.manifest)
        for sensor in ("s1", "s2")
    }
    dual_encoder = build_dual_encoder(encoders, 16)
    return dual_encoder, dual_encoder.get_weights()


@pytest.fixture
def make_watched(pairs, untrained, tmp_path):
    """A contrastive model, its dual encoder and a monitor of both."""

    def make(config, told, **options):
        dual_encoder, weights = untrained
        dual_encoder.set_weights(weights)
        model = ContrastiveModel(dual_encoder, make_objective(config, 128))
        monitor = HealthMonitor(
            config,
            dual_encoder,
            model=model,
            pairs=EvalPairs(manifest=pairs.manifest, files=pairs.files["eval"]),
            log=HealthLog(folder=str(tmp_path / "logs"), on_alarm=told.append, **options),
        )
        return model, dual_encoder, monitor

    return make


def scalars(log_dir):
    """name -> {step: value} of `log_dir`/eval; images by their size in bytes."""
    found = {}
    for path in sorted((log_dir / "eval").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                is_image = value.metadata.plugin_data.plugin_name == "images"
                number = (
                    len(value.tensor.string_val[2])
                    if is_image
                    else float(tf.make_ndarray(value.tensor))
                )
                found.setdefault(value.tag, {})[event.step] = number
    return found


def collapse(dual_encoder):
    """What a collapse leaves: a head whose output no longer depends on the patch."""
    kernel, bias = dual_encoder.heads["s1"].get_layer("projection").weights
    kernel.assign(1e-6 * kernel)
    bias.assign(np.ones(bias.shape))


def test_collapse_during_training_stops_it(make_watched, pairs, tmp_path):
    config, told, steps = make_config(num_steps=20), [], []
    model, dual_encoder, monitor = make_watched(config, told)

    def on_step(step, num_steps, values):
        steps.append(step)
        if step == 5:
            collapse(dual_encoder)

    serialized = tf.data.TFRecordDataset(pairs.files["eval"], "GZIP").batch(8)
    batch = parse_examples(next(iter(serialized)), {"s1": 2, "s2": 12})
    with pytest.raises(
        CollapseError,
        match=r"^pretraining collapsed at step 6: s1 spread is .*; see docs/health.md$",
    ):
        training.train(
            tf.distribute.get_strategy(),
            training.Fit(
                model=model,
                compute_loss=TwoStageLoss(
                    encode=lambda batch: model.encode(batch, training=True),
                    loss=model.replica_scalars,
                ),
                optimizer=keras.optimizers.SGD(1e-6),
                dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
                num_steps=20,
                check_every=2,
                check=monitor.check,
            ),
            log_dir=str(tmp_path / "logs"),
            on_step=on_step,
        )
    assert steps == [1, 2, 3, 4, 5, 6]
    # The fall is on record, step by step.
    values = scalars(tmp_path / "logs")
    assert sorted(values["spread/s1"]) == [2, 4, 6]
    assert values["spread/s1"][4] > 0.05 > values["spread/s1"][6]
    assert values["spread/s2"][6] > 0.05
    assert sorted(values["embedding_map"]) == [2, 4, 6]
    assert min(values["embedding_map"].values()) > 5000


def test_control_may_collapse_and_is_measured(make_watched, tmp_path):
    config, told = make_config(objective="shuffled"), []
    _, dual_encoder, monitor = make_watched(config, told)
    collapse(dual_encoder)
    monitor.check(4, math.log(8))
    assert told == []
    assert scalars(tmp_path / "logs")["spread/s1"][4] < 0.05


def test_sensor_that_is_not_trained_may_be_one_point(make_watched):
    _, dual_encoder, monitor = make_watched(make_config(objective="simclr_s2"), [])
    collapse(dual_encoder)
    monitor.check(4, 1.0)


def test_alarm_is_told_when_it_begins_and_again_after_it_ended(make_watched):
    told = []
    _, _, monitor = make_watched(make_config(), told)
    for step, loss in ((2, 3.0), (3, 3.0), (4, 1.5), (5, 3.0)):
        monitor.check(step, loss)
    assert [text.split(":")[0] for text in told] == ["step 2", "step 5"]
    assert "train loss 3.000 is that of guessing (2.079)" in told[0]


def test_loss_is_compared_with_guessing_in_the_batches(make_watched):
    told = []
    model, _, monitor = make_watched(make_config(), told)
    outputs = {sensor: tf.math.l2_normalize(tf.ones([8, 16]), axis=1) for sensor in ("s1", "s2")}
    # Three of eight pairs count, so guessing costs ln 3.
    model.replica_scalars(
        outputs | {"weight": tf.ones(8), "valid": tf.constant([1.0, 1, 1, 0, 0, 0, 0, 0])}
    )
    monitor.check(2, 1.1)
    assert told == [
        "step 2: train loss 1.100 is that of guessing (1.099): the model learns nothing"
    ]
    monitor.check(3, 1.0)
    monitor.check(4, 1.2)
    assert len(told) == 2


def test_nothing_is_judged_early_and_an_alarm_can_be_made_to_stop(make_watched):
    told = []
    _, dual_encoder, monitor = make_watched(make_config(min_steps=4, stop_on_alarm=True), told)
    monitor.check(2, 3.0)
    with pytest.raises(
        UnhealthyTrainingError, match=r"stopped at step 4: train loss 3.000 is that of guessing"
    ):
        monitor.check(4, 3.0)
    assert len(told) == 1
    collapse(dual_encoder)
    monitor.check(2, 3.0)


def test_worker_that_is_not_the_chief_writes_nothing_but_stops(make_watched, tmp_path):
    told = []
    _, dual_encoder, monitor = make_watched(make_config(), told, is_writer=False)
    monitor.check(2, 3.0)
    collapse(dual_encoder)
    with pytest.raises(CollapseError):
        monitor.check(4, 3.0)
    assert told == []
    assert not (tmp_path / "logs").exists()


def run(pairs, folder, config):
    return pretrain.run_pretraining(
        config,
        pairs.shards,
        Folders(output=str(folder / "model"), logs=str(folder / "logs")),
        is_served=False,
    )


@pytest.mark.e2e
def test_card_holds_metrics_alarms_and_map_and_tensorboard_goes_on(pairs, tmp_path, caplog):
    metrics = run(pairs, tmp_path, make_config(num_steps=4, stuck_margin_nats=50.0))
    assets = tmp_path / "model" / "assets.extra"
    card = json.loads((assets / "model_card.json").read_text())
    told = [record.getMessage() for record in caplog.records if record.name == "terrapair.training"]
    assert len(card["health"]["alarms"]) == len(told) == 1
    assert "that of guessing" in card["health"]["alarms"][0]
    assert card["health"]["not_measured"]["shortcut_latitude/s1"].startswith("within 1 degree")
    assert card["metrics"]["effective_rank/s2"] == pytest.approx(metrics["effective_rank/s2"])
    assert (assets / "embedding_map.png").read_bytes().startswith(b"\x89PNG")
    values = scalars(tmp_path / "logs")
    assert sorted(values["spread/s1"]) == [2, 4]
    assert values["spread/s1"][4] == pytest.approx(metrics["spread/s1"], rel=1e-6)
    assert values["spread/s1"][2] != values["spread/s1"][4]


@pytest.mark.e2e
def test_collapsed_encoder_is_not_published(pairs, tmp_path):
    with pytest.raises(CollapseError, match=r"at step 2: s1 spread is .* at least 1 is healthy"):
        run(pairs, tmp_path, make_config(num_steps=2, min_spread=1.0))
    assert not (tmp_path / "model").exists()


def test_uniform_logits_have_the_loss_of_guessing():
    for objective in ("multimodal", "multimodal_2n", "multimodal_intra"):
        config = make_config(objective=objective)
        same = tf.constant(np.tile(np.eye(1, 16, dtype=np.float32), (8, 1)))
        outputs = {view: same for view in ("s1", "s2", "s1_b", "s2_b")}
        losses, _ = make_objective(config, 128).losses_and_figures(
            outputs | {"weight": tf.ones(8), "valid": tf.ones(8)}
        )
        assert float(np.mean(losses)) == pytest.approx(alarms.full_chance(config, 4).loss, rel=1e-6)
