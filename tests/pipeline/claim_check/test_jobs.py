"""Jobs: a cell and an arm change only some settings of the task's training."""

import dataclasses
from pathlib import Path

import pytest
import tensorflow as tf

from beam_jobs.config import BuildConfig, CatalogConfig, LabelConfig, PatchConfig
from beam_jobs.contracts import layout, manifest, settings
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.published import card
from models.segment_config import SegmentConfig
from pipeline.claim_check import published_arms
from pipeline.claim_check.config import Cell, ClaimConfig, Setting
from pipeline.claim_check.jobs import Planner, unique
from pipeline.claim_check.label_subsets import write_subset
from pipeline.config import RunConfig, TaskConfig, load_run_config
from pipeline.training_jobs import Version
from tests.data.networks import make_encoder
from tests.data.runs.repository import REPOSITORY
from tests.data.shards import make_shards

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
    keep="best",
    eval_every=1,
    patience=3,
)
LINEAR = Cell(task="flood", inputs="s1+s2", regime="linear", fraction=1.0)


def planner_of(root: Path, pairs: Path, labels: Path) -> Planner:
    config = RunConfig(
        name="tiny",
        root=str(root),
        catalogs=(CatalogConfig(layout="stac", path="none"),),
        pairs=BuildConfig(patch=PatchConfig(size_px=32)),
        pretrain=PretrainConfig(encoder=ENCODER, num_steps=2, global_batch_size=8),
        tasks=(TaskConfig(name="flood", label=LabelConfig(schema="water"), segment=SEGMENT),),
    )
    claim = ClaimConfig(
        primary=LINEAR, inputs=("s1+s2",), fractions=(1.0,), linear_learning_rate=0.04
    )
    versions = [Version(path=str(path), manifest=manifest.read(path)) for path in (pairs, labels)]
    return Planner(config, claim, versions[0], {"flood": versions[1]})


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    path = make_shards.make_version(
        tmp_path_factory.mktemp("flood"), kind="labels", label_schema="water"
    )
    return planner_of(Path("runs/tiny"), path, path)


def config_of(planner, arm, **cell):
    return planner.trial(arm, dataclasses.replace(LINEAR, **cell), Setting(), seed=1).config


def test_a_linear_probe_trains_at_its_own_rate_and_an_encoder_from_scratch_does_not(planner):
    probe = config_of(planner, "multimodal")
    assert (probe.regime, probe.head) == ("linear", "linear")
    assert (probe.optimizer.learning_rate, probe.optimizer.weight_decay) == (0.04, 0.5)
    scratch = config_of(planner, "scratch")
    assert (scratch.regime, scratch.head) == ("scratch", "linear")
    assert scratch.optimizer == SEGMENT.optimizer


def test_thresholds_of_two_classes_are_chosen_on_eval_in_every_trial(planner):
    for seed, is_permuted in ((0, False), (3, True)):
        trial = planner.trial("random", LINEAR, Setting(), seed, is_permuted=is_permuted)
        assert [Path(path).name for path in trial.results] == [
            "eval.npz",
            "test.npz",
            "result.json",
        ]


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


@pytest.mark.parametrize("arm", ["multimodal", "scratch", "random"])
def test_every_trial_takes_all_steps_and_chooses_none_by_labels_it_was_not_given(planner, arm):
    config = config_of(planner, arm, fraction=0.25)
    assert (config.keep, config.evaluates_every, config.patience) == ("last", 0, None)


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


def rebuilt(root: Path, *, pairs_seed: int = 0, labels_seed: int = 0) -> tuple[Path, Path]:
    """Build pairs and labels under one root; the numbers of patches are always the same."""
    return (
        make_shards.make_version(root / "data" / "pairs", seed=pairs_seed),
        make_shards.make_version(
            root / "data" / "flood", kind="labels", label_schema="water", seed=labels_seed
        ),
    )


def records_of(*paths: str) -> set[bytes]:
    return set(tf.data.TFRecordDataset(list(paths), "GZIP").as_numpy_iterator())


@pytest.mark.parametrize("is_permuted", [False, True])
def test_labels_that_are_redrawn_under_one_root_are_those_that_a_trial_trains_on(
    tmp_path, is_permuted
):
    subsets, trials = [], []
    for labels_seed in (0, 1, 0):
        _, labels = rebuilt(tmp_path, labels_seed=labels_seed)
        planned = planner_of(tmp_path, *rebuilt(tmp_path, labels_seed=labels_seed))
        cell = dataclasses.replace(LINEAR, fraction=0.5)
        trial = planned.trial("random", cell, Setting(), seed=3, is_permuted=is_permuted)
        path = Path(trial.labels)
        write_subset(labels, trial.num_patches, trial.seed, path, is_permuted=is_permuted)
        drawn = records_of(trial.labels)
        assert len(drawn) == trial.num_patches == 12
        if not is_permuted:
            train = records_of(*map(str, layout.shard_paths(labels, "train")))
            assert drawn <= train, "a patch of the data that were there before"
        subsets.append(drawn)
        trials.append(trial)
    assert not subsets[0] & subsets[1]
    assert subsets[0] == subsets[2]
    assert trials[0].folder == trials[2].folder != trials[1].folder


def test_trials_on_encoders_of_other_pairs_are_other_trials(tmp_path):
    def folders(pairs_seed: int) -> dict[str, str]:
        planned = planner_of(tmp_path, *rebuilt(tmp_path, pairs_seed=pairs_seed))
        return {
            arm: planned.trial(arm, LINEAR, Setting(), seed=1).folder
            for arm in ("multimodal", "scratch")
        }

    before, after = folders(0), folders(1)
    assert after["multimodal"] != before["multimodal"]
    # Without an encoder, nothing of the pairs is in the model.
    assert after["scratch"] == before["scratch"]
    assert folders(0) == before


def test_the_shipped_check_spends_its_budget_on_seeds_of_the_cell_that_decides(tmp_path):
    config = load_run_config(REPOSITORY / "pipeline/configs/claim.yaml", (), {})
    claim = config.claim
    assert claim.num_seeds == 5
    assert claim.cells("landcover") == (claim.primary,)
    pairs = make_shards.make_version(tmp_path / "pairs")
    labels = make_shards.make_version(
        tmp_path / "labels", kind="labels", label_schema="dynamic_world"
    )
    versions = [Version(path=str(path), manifest=manifest.read(path)) for path in (pairs, labels)]
    planner = Planner(config, claim, versions[0], {"landcover": versions[1]})
    tried = [(arm, setting, 0) for arm in ("multimodal", "simclr") for setting in claim.settings]
    wanted = [(arm, Setting(), seed) for arm in claim.arms for seed in range(claim.num_seeds)]
    encoders = unique(
        job
        for arm, setting, seed in [*tried, *wanted]
        for job in planner.pretrainings(arm, claim.primary, setting, seed).values()
    )
    trials = unique(
        [
            *(planner.trial(arm, claim.primary, *rest) for arm, *rest in [*tried, *wanted]),
            *(planner.trial(arm, claim.primary, *rest, is_permuted=True) for arm, *rest in wanted),
        ]
    )
    # As the comment of the config says: both worlds must end within 45 minutes.
    assert sum(job.config.objective != "none" for job in encoders) == 18
    assert (len(encoders), len(trials)) == (18 + 5, 53)
    # Six classes have no threshold, so eval is scored only where a setting is chosen on it.
    assert sum(trial.scored == ("eval", "test") for trial in trials) == 5
    assert sum(trial.scored == ("test",) for trial in trials) == 48
