"""Jobs: a cell and an arm change only some settings of the task's training."""

import dataclasses

import make_encoder
import make_shards
import pytest

from beam_jobs.config import BuildConfig, CatalogConfig, LabelConfig, PatchConfig
from beam_jobs.contracts import manifest, settings
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.published import card
from models.segment_config import SegmentConfig
from pipeline.claim_check import published_arms
from pipeline.claim_check.config import Cell, ClaimConfig, Setting
from pipeline.claim_check.jobs import Planner, Version
from pipeline.config import RunConfig, TaskConfig

ENCODER = EncoderConfig(backbone="small", embedding_dim=8)
SEGMENT = SegmentConfig(
    sensors=("s1", "s2"),
    label_schema="water",
    encoder=ENCODER,
    num_steps=2,
    optimizer=OptimizerConfig(learning_rate=0.002, weight_decay=0.5),
    modality_dropout=0.3,
    layer_decay=0.8,
    unfreeze_after=0.5,
)
LINEAR = Cell(task="flood", inputs="s1+s2", regime="linear", fraction=1.0)


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    path = make_shards.make_version(
        tmp_path_factory.mktemp("flood"), kind="labels", label_schema="water"
    )
    config = RunConfig(
        name="tiny",
        root="runs/tiny",
        catalogs=(CatalogConfig(layout="stac", path="none"),),
        pairs=BuildConfig(patch=PatchConfig(size_px=32)),
        pretrain=PretrainConfig(encoder=ENCODER, num_steps=2, global_batch_size=8),
        tasks=(TaskConfig(name="flood", label=LabelConfig(schema="water"), segment=SEGMENT),),
    )
    claim = ClaimConfig(
        primary=LINEAR, inputs=("s1+s2",), fractions=(1.0,), linear_learning_rate=0.04
    )
    version = Version(path=str(path), manifest=manifest.read(path))
    return Planner(config, claim, version, {"flood": version})


def config_of(planner, arm, **cell):
    return planner.trial(arm, dataclasses.replace(LINEAR, **cell), Setting(), seed=1).config


def test_a_linear_probe_trains_at_its_own_rate_and_an_encoder_from_scratch_does_not(planner):
    probe = config_of(planner, "multimodal")
    assert (probe.regime, probe.head) == ("linear", "linear")
    assert (probe.optimizer.learning_rate, probe.optimizer.weight_decay) == (0.04, 0.5)
    scratch = config_of(planner, "scratch")
    assert (scratch.regime, scratch.head) == ("scratch", "linear")
    assert scratch.optimizer == SEGMENT.optimizer


def test_what_only_finetuning_or_two_sensors_can_have_is_left_out_elsewhere(planner):
    tuned = config_of(planner, "multimodal", regime="finetune")
    assert (tuned.head, tuned.layer_decay, tuned.unfreeze_after) == ("unet", 0.8, 0.5)
    assert tuned.modality_dropout == 0.3
    for arm, regime in (
        ("multimodal", "linear"),
        ("multimodal", "frozen"),
        ("scratch", "finetune"),
    ):
        config = config_of(planner, arm, regime=regime)
        assert (config.layer_decay, config.unfreeze_after) == (1.0, 0.0)
    assert config_of(planner, "multimodal", inputs="s1").modality_dropout == 0.0


def publish(planner, folder, **changes):
    """A published encoder of both sensors, with the card of a training."""
    version = planner._pairs
    make_encoder.publish_keras_half(make_encoder.make_dual_encoder(version.manifest), folder)
    inputs = {sensor: {"bands": list(version.manifest.bands(sensor))} for sensor in ("s1", "s2")}
    config = settings.to_dict(PretrainConfig(encoder=ENCODER, num_steps=2, global_batch_size=8))
    described = {"task": "pretraining", "config": config, "inputs": inputs} | changes
    card.write_card(str(folder / "assets.extra"), described)
    return f"weights:{folder}"


def test_an_arm_of_published_weights_starts_from_them_and_has_their_architecture(planner, tmp_path):
    arm = publish(planner, tmp_path / "ours")
    assert planner.pretrainings(arm, LINEAR, Setting(), seed=1) == {}
    trial = planner.trial(arm, LINEAR, Setting(), seed=1)
    assert trial.config.encoder_paths == dict.fromkeys(("s1", "s2"), str(tmp_path / "ours"))
    assert (trial.config.regime, trial.config.encoder) == ("linear", ENCODER)
    # Public weights have a card of their own kind.
    imported = publish(planner, tmp_path / "imported", config={"backbone": "torch_resnet18"})
    found = planner.trial(imported, LINEAR, Setting(), seed=1)
    assert found.config.encoder.backbone == "torch_resnet18"
    assert found.folder != trial.folder


def test_other_weights_at_the_same_place_are_another_trial(planner, tmp_path):
    arm = publish(planner, tmp_path / "encoder")
    before = published_arms.read(arm).sha256
    assert published_arms.read(arm).sha256 == before
    weights = tmp_path / "encoder" / "assets.extra" / "s1_encoder.keras"
    weights.write_bytes(weights.read_bytes() + b"x")
    assert published_arms.read(arm).sha256 != before


def test_weights_that_do_not_fit_are_one_line(planner, tmp_path):
    version = planner._pairs.manifest
    with pytest.raises(
        settings.SettingsError, match=r"claim\.arms: weights:/gone: .* no model card"
    ):
        published_arms.read("weights:/gone")
    inputs = {"s1": {"bands": ["VV"]}}
    arm = publish(planner, tmp_path / "one_band", inputs=inputs)
    with pytest.raises(settings.SettingsError, match="holds encoders of s1, a cell needs s2"):
        published_arms.check(arm, ("s2",), version)
    with pytest.raises(settings.SettingsError, match=r"knows bands \('VV',\), the shards hold"):
        published_arms.check(arm, ("s1",), version)
    with pytest.raises(settings.SettingsError, match="both hold an encoder of s1"):
        published_arms.read(f"{arm},{tmp_path / 'one_band'}")
    flood = publish(planner, tmp_path / "flood", task="segmentation")
    with pytest.raises(settings.SettingsError, match="published encoder, got a model of segm"):
        published_arms.read(flood)
    with pytest.raises(ValueError, match="or weights:<folder of a published encoder>, got 'moco'"):
        ClaimConfig(primary=LINEAR, arms=("multimodal", "simclr", "moco"))
