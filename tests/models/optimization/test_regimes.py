import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import segment
from models.config import EncoderConfig, OptimizerConfig
from models.encoders import SensorEncoder
from models.optimization import regimes
from models.optimization.optimizers import make_optimizer
from models.published import parity
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter
from models.training import scaffold, steps
from models.training.scaffold import Folders
from tests.data.faults.watched_training import KilledError, Watch

SMALL = EncoderConfig(backbone="small", embedding_dim=32)
CONFIG = SegmentConfig(sensors=("s1",), label_schema="water", encoder=SMALL, num_steps=10)


def make_segmenter(head="linear", sensors=("s1",)):
    keras.utils.set_random_seed(0)
    encoders = {
        sensor: SensorEncoder(
            sensor=sensor, bands=("a", "b"), mean=(0, 0), std=(1, 1), backbone="small"
        )
        for sensor in sensors
    }
    return Segmenter(encoders=encoders, num_classes=2, decoder_channels=(8, 8, 8, 8), head=head)


def test_every_trainable_variable_of_an_encoder_belongs_to_one_level():
    encoder = make_segmenter().encoders["s1"]
    levels = encoder.variables_by_level()
    assert [variable for level in levels for variable in level] == list(encoder.trainable_variables)
    # The stem: a 7x7 kernel, scale and shift; then blocks of 64, 96 and 128 filters.
    assert [tuple(variable.shape) for variable in levels[0]] == [(7, 7, 2, 64), (64,), (64,)]
    assert [level[-1].shape[-1] for level in levels] == [64, 64, 96, 128]


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_first_update_of_each_level_is_its_power_of_the_decay(optimizer):
    config = dataclasses.replace(CONFIG, layer_decay=0.5)

    def updates(paces):
        model = make_segmenter(sensors=("s1", "s2"))
        rates = OptimizerConfig(
            optimizer=optimizer, learning_rate=0.5, weight_decay=0.1, warmup_fraction=0.0
        )
        made = make_optimizer(
            rates, config.num_steps, paces=regimes.make_paces(model, config) if paces else ()
        )
        variables = model.trainable_variables
        made.build(variables)
        before = {id(variable): variable.numpy().astype(np.float64) for variable in variables}
        rng = np.random.default_rng(0)
        made.apply(
            [tf.constant(rng.normal(size=variable.shape), tf.float32) for variable in variables],
            variables,
        )
        change = {id(variable): variable.numpy() - before[id(variable)] for variable in variables}
        of_levels = [
            [
                change.pop(id(variable))
                for encoder in model.encoders.values()
                for variable in encoder.variables_by_level()[i]
            ]
            for i in (3, 2, 1, 0)
        ]
        return [list(change.values()), *of_levels]

    for depth, (plain, decayed) in enumerate(zip(updates(False), updates(True), strict=True)):
        assert plain
        for one, two in zip(plain, decayed, strict=True):
            assert np.abs(one).max() > 1e-5
            np.testing.assert_allclose(two, one * 0.5**depth, atol=2e-7 + 1e-5 * np.abs(one).max())


def test_paces_are_none_unless_asked_for_and_spread_the_levels_up_to_the_share_of_the_steps():
    model = make_segmenter()
    assert regimes.make_paces(model, CONFIG) == ()
    paces = regimes.make_paces(model, dataclasses.replace(CONFIG, num_steps=20, unfreeze_after=0.4))
    by_id = dict(zip((id(variable) for variable in model.trainable_variables), paces, strict=True))
    # From the stem, whose share of the steps is the one asked for, to the deepest
    # level.
    for level, first_step in zip(
        model.encoders["s1"].variables_by_level(), (8, 6, 4, 2), strict=True
    ):
        assert {by_id.pop(id(variable)) for variable in level} == {(1.0, first_step)}
    assert set(by_id.values()) == {(1.0, 0)}


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_each_weight_has_moved_after_the_first_step_of_its_level_and_not_before(optimizer):
    config = dataclasses.replace(CONFIG, num_steps=16, unfreeze_after=0.5)
    model = make_segmenter(sensors=("s1", "s2"))
    made = make_optimizer(
        OptimizerConfig(optimizer=optimizer), 16, paces=regimes.make_paces(model, config)
    )
    variables = model.trainable_variables
    made.build(variables)
    start = [variable.numpy() for variable in variables]
    rng = np.random.default_rng(0)
    moved_at = {}
    for step in range(1, 11):
        made.apply(
            [tf.constant(rng.normal(size=variable.shape), tf.float32) for variable in variables],
            variables,
        )
        for variable, before in zip(variables, start, strict=True):
            if not np.array_equal(variable.numpy(), before):
                moved_at.setdefault(id(variable), step)
    for encoder in model.encoders.values():
        for level, first_move in zip(encoder.variables_by_level(), (9, 7, 5, 3), strict=True):
            assert {moved_at.pop(id(variable)) for variable in level} == {first_move}
    # What is left is the head.
    assert set(moved_at.values()) == {1}
    assert len(moved_at) > 1


@pytest.mark.parametrize(("is_trainable", "num_kernels"), [(False, 4), (True, 13)])
def test_frozen_encoder_gets_no_gradient_not_even_one_that_is_thrown_away(
    is_trainable, num_kernels
):
    model = make_segmenter()
    regimes.set_encoders_trainable(model, is_trainable)
    assert sum(len(variable.shape) == 4 for variable in model.trainable_variables) == num_kernels
    optimizer = make_optimizer(OptimizerConfig(), 5)
    optimizer.build(model.trainable_variables)
    step = steps.make_step(
        tf.distribute.get_strategy(),
        model,
        lambda b: tf.reduce_mean(model(b, training=True)["logits"] ** 2),
        optimizer,
    )
    graph = step.get_concrete_function({"s1": tf.zeros([2, 32, 32, 2])}).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("Conv2DBackpropFilter") == num_kernels
    assert ("FusedBatchNormGradV3" in kinds) == is_trainable


def weights_of(encoder):
    return {variable.path: variable.numpy() for variable in encoder.variables}


def run(config, labels, pretrained, path, checkpoints=None, on_step=None):
    """Train a segmenter that starts from `pretrained`, and is not published."""
    recipe = segment.SegmentRecipe(
        config, labels.shards, segment.SegmenterSources(encoder=pretrained.dir)
    )
    folders = Folders(output=str(path / "model"), logs=str(path / "logs"), checkpoints=checkpoints)
    return scaffold.fit(recipe, folders, on_step)


SHORT = dataclasses.replace(
    CONFIG,
    num_steps=4,
    global_batch_size=8,
    decoder_channels=(8, 8, 8, 8),
    optimizer=OptimizerConfig(learning_rate=1e-2),
)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"regime": "frozen", "precision": "mixed_bfloat16"}, True),
        ({"regime": "frozen", "head": "deeplab"}, True),
        ({"regime": "linear", "head": "linear"}, True),
        ({"regime": "finetune", "head": "linear", "layer_decay": 0.7}, False),
        ({"regime": "scratch"}, False),
    ],
)
def test_encoder_keeps_each_bit_where_it_is_frozen_and_only_there(
    changes, is_same, labels, pretrained, tmp_path
):
    config = dataclasses.replace(SHORT, **changes)
    trained = run(config, labels, pretrained, tmp_path)
    assert np.isfinite(trained.train_loss)
    start = segment.export.load_encoders(pretrained.dir, ["s1"])["s1"]
    for (name, value), (other, end) in zip(
        weights_of(start).items(), weights_of(trained.model.encoders["s1"]).items(), strict=True
    ):
        assert name == other
        assert np.array_equal(value, end) == is_same, name
    # Frozen is not what it is: the next training is free to move it.
    assert trained.model.encoders["s1"].trainable


@pytest.mark.e2e
@pytest.mark.parametrize("head", ["deeplab", "linear"])
def test_each_head_is_published_as_it_was_trained(head, labels, pretrained, tmp_path):
    config = dataclasses.replace(SHORT, num_steps=1, regime="frozen", head=head)
    metrics = segment.run_segmentation(
        config,
        labels.shards,
        Folders(output=str(tmp_path / "model"), logs=str(tmp_path / "logs")),
        sources=segment.SegmenterSources(encoder=pretrained.dir),
    )
    assert np.isfinite(metrics["loss"])
    assert segment.export.load_segmenter(str(tmp_path / "model")).encoders["s1"].trainable
    compared = parity.compare_with_keras(str(tmp_path / "model"))
    assert max(one.max_abs_difference for one in compared) < 1e-4


@pytest.mark.e2e
def test_training_killed_amid_and_after_unfreezing_ends_as_the_undisturbed_one(
    labels, pretrained, tmp_path
):
    config = dataclasses.replace(SHORT, num_steps=6, unfreeze_after=0.5, checkpoint_every=1)
    watched = Watch()
    undisturbed = run(config, labels, pretrained, tmp_path / "undisturbed", on_step=watched).model
    kept = {"checkpoints": str(tmp_path / "kept")}
    # Levels begin after steps 1, 2, 2 and 3.
    losses = {}
    for attempt in (Watch(kill_at=2), Watch(kill_at=5)):
        with pytest.raises(KilledError):
            run(config, labels, pretrained, tmp_path / "killed", on_step=attempt, **kept)
        losses |= attempt.losses
    last = Watch()
    resumed = run(config, labels, pretrained, tmp_path / "killed", on_step=last, **kept).model
    assert losses | last.losses == pytest.approx(watched.losses, rel=1e-3)
    for one, two in zip(undisturbed.variables, resumed.variables, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-2, atol=1e-4, err_msg=one.path)


@pytest.mark.e2e
def test_model_trained_with_sensors_dropping_out_answers_with_either_alone(
    labels, pretrained, tmp_path
):
    config = dataclasses.replace(
        SHORT, sensors=("s1", "s2"), modality_dropout=0.5, num_steps=40, optimizer=OptimizerConfig()
    )
    losses = []
    # Published, with the threshold that its scores on eval choose.
    segment.run_segmentation(
        config,
        labels.shards,
        Folders(output=str(tmp_path / "model"), logs=str(tmp_path / "logs")),
        sources=segment.SegmenterSources(encoder=pretrained.dir),
        on_step=lambda step, num_steps, v: losses.append(v["loss"]),
    )
    model = segment.export.load_segmenter(str(tmp_path / "model"))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    dataset = segment.input_pipeline.eval_dataset(
        labels.files["eval"],
        segment.input_pipeline.Features(
            num_bands={"s1": 2, "s2": 12},
            with_label=True,
        ),
        batch_size=8,
    )
    batch = next(iter(dataset))
    for gone in ("s1", "s2"):
        outputs = model(
            {s: tf.fill(batch[s].shape, np.nan) if s == gone else batch[s] for s in ("s1", "s2")}
        )
        label = segment.mask_label(batch["label"], outputs["valid_mask"]).numpy()
        right = outputs["label"].numpy() == label
        assert right[label != 255].mean() > 0.8, gone
