"""Jobs: a cell and an arm change only some settings of the task's training."""

import dataclasses

import make_shards
import pytest

from beam_jobs.config import BuildConfig, CatalogConfig, LabelConfig, PatchConfig
from beam_jobs.contracts import manifest
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.segment_config import SegmentConfig
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
