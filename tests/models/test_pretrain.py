import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import pretrain
from models.config import EncoderConfig, PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import build_dual_encoder
from models.encoders import build_encoder
from models.objectives.registry import make_objective
from models.published import export
from models.training import scaffold
from models.training.scaffold import Folders
from tests.data.faults.watched_training import KilledError, Watch


def test_loss_falls_clearly_and_every_step_is_reported(pretrained):
    assert [step for step, _, _ in pretrained.steps] == list(range(1, 21))
    losses = [loss for _, _, loss in pretrained.steps]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_metrics_are_of_the_eval_split(pretrained):
    metrics = pretrained.metrics
    assert set(metrics) == {
        "train_loss",
        "eval_loss",
        *(
            f"recall_at_{k}/{direction}"
            for k in (1, 5, 10)
            for direction in ("s1_to_s2", "s2_to_s1")
        ),
        "num_eval_pairs",
        "num_health_patches",
        "alignment/s1_s2",
        *(
            f"{figure}/{sensor}"
            for figure in ("uniformity", "effective_rank", "spread", "min_dimension_std")
            for sensor in ("s1", "s2")
        ),
    }
    assert metrics["num_eval_pairs"] == 8
    assert metrics["eval_loss"] < math.log(8)
    assert max(metrics["recall_at_1/s1_to_s2"], metrics["recall_at_1/s2_to_s1"]) > 1 / 8
    assert metrics["train_loss"] == pytest.approx(
        np.mean([loss for _, _, loss in pretrained.steps[-10:]])
    )
    assert {path.name for path in pretrained.logs.iterdir()} == {"train", "eval"}


def make_config(changes):
    """Return a training of two steps, with `changes`."""
    encoder = EncoderConfig(backbone="small", embedding_dim=16)
    options = {"encoder": encoder, "num_steps": 2, "global_batch_size": 8, "temperature": 0.2}
    return PretrainConfig(**(options | changes))


def fit(pairs, tmp_path, **changes):
    """Train, but publish nothing; return the train loss and the last step's scalars."""
    watch = Watch(None)
    logs = str(tmp_path / "logs")
    recipe = pretrain.PretrainRecipe(make_config(changes), pairs.shards, logs, None, False)
    trained = scaffold.fit(recipe, Folders(output=str(tmp_path / "model"), logs=logs), watch)
    return trained.train_loss, watch.last


def run(pairs, tmp_path, kill_at=None, warm_start_dir=None, checkpoints=None, **changes):
    """Train, evaluate and publish; return the metrics and the last step's scalars."""
    watch = Watch(kill_at)
    metrics = pretrain.run_pretraining(
        make_config(changes),
        pairs.shards,
        Folders(
            output=str(tmp_path / "model"), logs=str(tmp_path / "logs"), checkpoints=checkpoints
        ),
        warm_start_dir=warm_start_dir,
        is_served=False,
        on_step=watch,
    )
    return metrics, watch.last


@pytest.mark.e2e
def test_own_checkpoint_goes_before_the_warm_start(pretrained, pairs, tmp_path):
    """24 pairs in batches of 8 are 3 steps an epoch: the run is killed within the second epoch."""
    options = {"encoder": pretrained.config.encoder, "num_steps": 8, "checkpoint_every": 2}
    cold, _ = fit(pairs, tmp_path / "cold", **options)
    options["warm_start_dir"] = pretrained.dir
    expected, _ = run(pairs, tmp_path / "warm", **options)
    assert expected["train_loss"] != pytest.approx(cold, rel=1e-2)
    kept = str(tmp_path / "kept")
    with pytest.raises(KilledError):
        run(pairs, tmp_path / "killed", kill_at=5, checkpoints=kept, **options)
    assert not (tmp_path / "killed" / "model").exists()
    got, _ = run(pairs, tmp_path / "resumed", checkpoints=kept, **options)
    assert got == pytest.approx(expected, rel=1e-4)
    assert not (tmp_path / "kept").exists()


def test_warm_start_takes_weights_and_normalization_of_the_published_encoder(
    pretrained, pairs, labels
):
    config = dataclasses.replace(pretrained.config, precision="float32")
    model = pretrain.build_model(config, labels.manifest, pretrained.dir)
    encoders, heads = export.load_encoders(pretrained.dir), export.load_heads(pretrained.dir)
    for sensor in ("s1", "s2"):
        assert model.encoders[sensor].mean == encoders[sensor].mean
        for parts, published in ((model.encoders, encoders), (model.heads, heads)):
            for got, expected in zip(
                parts[sensor].get_weights(), published[sensor].get_weights(), strict=True
            ):
                np.testing.assert_array_equal(got, expected)


def test_warm_start_of_another_architecture_is_refused_in_one_line(pretrained, pairs):
    for encoder, rule in (
        (
            EncoderConfig(backbone="small", embedding_dim=16),
            r"s1: encoder\.embedding_dim is 16, the published head's 32",
        ),
        (
            EncoderConfig(backbone="small", embedding_dim=32, norm="group"),
            r"s1: encoder\.norm is 'group'",
        ),
    ):
        config = dataclasses.replace(pretrained.config, encoder=encoder)
        with pytest.raises(ValueError, match=f"^{pretrained.dir}: {rule}"):
            pretrain.build_model(config, pairs.manifest, pretrained.dir)


@pytest.mark.e2e
def test_float16_learns_what_float32_does_and_publishes_float32(pairs, tmp_path):
    expected, _ = fit(pairs, tmp_path / "float32", num_steps=6)
    whole, _ = run(pairs, tmp_path / "whole", num_steps=6, precision="mixed_float16")
    # In parts, batch normalization is that of the parts: another training, of which
    # only sanity is asked.
    got, told = fit(
        pairs, tmp_path / "float16", num_steps=2, precision="mixed_float16", micro_batch_size=4
    )
    assert math.isfinite(got)
    assert told["valid_pair_fraction"] == 1.0
    assert whole["train_loss"] == pytest.approx(expected, rel=0.02)
    assert export.load_encoders(str(tmp_path / "whole" / "model"))["s1"].precision == "float32"


@pytest.mark.e2e
# One with views of its own, one with heads of its own, one with changed pairs; the
# steps of all are in the parity test.
@pytest.mark.parametrize("objective", ["simclr_s1", "dense", "shuffled"])
def test_objective_trains_in_parts_and_publishes(pairs, tmp_path, objective):
    metrics, told = run(
        pairs,
        tmp_path,
        objective=objective,
        micro_batch_size=4,
        logits_chunk_size=2,
        min_negative_km=1000.0,
    )
    assert math.isfinite(told["loss"])
    assert math.isfinite(metrics["eval_loss"])
    assert 0.0 <= told["near_negative_fraction"] <= 1.0
    assert export.load_encoders(str(tmp_path / "model"))["s1"].norm == "batch"
    # A sensor that is not looked at stays as it began.
    if objective == "simclr_s1":
        before = untrained(pairs)
        after = export.load_encoders(str(tmp_path / "model"))
        for old, new in zip(before["s2"].get_weights(), after["s2"].get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not np.array_equal(before["s1"].get_weights()[0], after["s1"].get_weights()[0])


def untrained(pairs):
    keras.utils.set_random_seed(0)
    config = EncoderConfig(backbone="small", embedding_dim=16)
    return {sensor: build_encoder(config, sensor, pairs.manifest) for sensor in ("s1", "s2")}


@pytest.mark.e2e
def test_control_without_training_publishes_the_encoders_as_they_began(pairs, tmp_path):
    metrics, told = run(pairs, tmp_path, objective="none")
    assert told == {}
    assert math.isnan(metrics["train_loss"])
    assert metrics["eval_loss"] > 0
    before, after = untrained(pairs), export.load_encoders(str(tmp_path / "model"))
    for sensor in ("s1", "s2"):
        for old, new in zip(before[sensor].get_weights(), after[sensor].get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_patch_without_any_data_in_one_sensor_leaves_loss_and_gradients_finite(pairs):
    encoders = untrained(pairs)
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=16), num_steps=1, objective="dense"
    )
    model = ContrastiveModel(build_dual_encoder(encoders, 16), make_objective(config, 128))
    rng = np.random.default_rng(0)
    batch = {
        "s1": rng.normal(-12, 3, (3, 32, 32, 2)).astype(np.float32),
        "s2": rng.uniform(0.1, 0.3, (3, 32, 32, 12)).astype(np.float32),
    }
    batch["s1"][1] = np.nan
    with tf.GradientTape() as tape:
        outputs = model.encode(batch, training=True)
        loss = model.replica_scalars(outputs)["loss"]
    np.testing.assert_array_equal(outputs["valid"], [1, 0, 1])
    assert model.pair_losses(outputs)[1] == 0.0
    assert float(model.replica_scalars(outputs)["valid_pair_fraction"]) == pytest.approx(2 / 3)
    assert np.isfinite(float(loss))
    gradients = [
        gradient
        for gradient in tape.gradient(loss, model.trainable_variables)
        if gradient is not None
    ]
    assert len(gradients) > 20
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", ["micro_batch_size", "logits_chunk_size"])
def test_parts_that_do_not_fit_a_replica_are_refused(name):
    class TwoReplicas:
        num_replicas_in_sync = 2

    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small"), num_steps=1, global_batch_size=12, **{name: 4}
    )
    with pytest.raises(ValueError, match=f"{name} must divide the 6 pairs of each replica, got 4"):
        pretrain._check_sizes(config, TwoReplicas())


def test_batch_larger_than_the_train_split_is_refused(pairs, tmp_path):
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small"), num_steps=1, global_batch_size=64
    )
    with pytest.raises(ValueError, match="one batch of 64 examples, got 24"):
        pretrain.run_pretraining(
            config, pairs.shards, Folders(output=str(tmp_path / "m"), logs=str(tmp_path / "l"))
        )
    assert not (tmp_path / "m").exists()
