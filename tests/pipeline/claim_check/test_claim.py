"""A check on tiny shards refuses bad data, and single jobs of one arm.

tests/e2e/test_claim_check.py runs a whole check.
"""

import contextlib
import dataclasses
import math
from pathlib import Path

import pytest

from beam_jobs.config import BuildConfig, CatalogConfig, LabelConfig, PatchConfig
from beam_jobs.contracts import manifest
from beam_jobs.errors import DataError, RefusedError
from beam_jobs.judging import audit
from models.config import EncoderConfig, PretrainConfig
from models.segment_config import SegmentConfig
from models.training.step_log import NonFiniteLossError
from pipeline import training_jobs
from pipeline.claim_check import claim, outcomes, trainings
from pipeline.claim_check.config import Cell, ClaimConfig, Setting
from pipeline.claim_check.jobs import Planner
from pipeline.config import RunConfig, TaskConfig
from pipeline.data_build import BuiltData
from pipeline.training_jobs import Version, result_of
from tests.data.shards import make_shards

ENCODER = EncoderConfig(backbone="small", embedding_dim=8, norm="group")
PRIMARY = Cell(task="flood", inputs="s1", fraction=0.2)


def make_config(root, **changes):
    segment = SegmentConfig(
        sensors=("s1",), label_schema="water", encoder=ENCODER, num_steps=2, global_batch_size=4
    )
    values = {
        "primary": PRIMARY,
        "fractions": (0.2,),
        "arms": ("multimodal", "simclr", "shuffled", "random", "scratch"),
        "settings": (Setting(), Setting(strength=2.0)),
        "num_seeds": 3,
        "num_processes": 2,
        "num_resamples": 50,
    }
    return RunConfig(
        name="tiny",
        root=str(root),
        catalogs=(CatalogConfig(layout="stac", path="none"),),
        pairs=BuildConfig(patch=PatchConfig(size_px=32)),
        pretrain=PretrainConfig(
            encoder=ENCODER, num_steps=2, global_batch_size=8, num_eval_batches=1
        ),
        tasks=(TaskConfig(name="flood", label=LabelConfig(schema="water"), segment=segment),),
        claim=ClaimConfig(**values | changes),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pairs = make_shards.make_version(root / "pairs", seed=1)
    # A degree away from the pairs, so that the audit finds no overlap.
    # Sixty train patches, because their 20 test patches are of five blocks.
    labels = make_shards.make_version(
        root / "flood", kind="labels", label_schema="water", seed=2, north=1.0, num_patches=60
    )
    return BuiltData(pairs=pairs, tasks={"flood": labels})


def check(config, data):
    stages = []

    @contextlib.contextmanager
    def stage(name):
        stages.append(name)
        yield

    return claim.check_claim(config, data, stage, lambda done, total: None), stages


@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("eager_steps")
def test_the_arm_with_pairs_and_views_learns_in_half_the_steps_and_is_scored(tmp_path):
    bands = {"s1_bands": ("VV",), "s2_bands": ("B4", "B3", "B2")}
    paths = {
        "pairs": make_shards.make_version(tmp_path / "pairs", seed=1, **bands),
        "flood": make_shards.make_version(
            tmp_path / "flood", kind="labels", label_schema="water", seed=2, north=1.0, **bands
        ),
    }
    versions = {
        name: Version(path=str(path), manifest=manifest.read(path)) for name, path in paths.items()
    }
    both = dataclasses.replace(PRIMARY, inputs="s1+s2")
    config = make_config(tmp_path / "run", primary=both, inputs=("s1+s2",))
    planner = Planner(config, config.claim, versions["pairs"], {"flood": versions["flood"]})
    encoder = planner.pretrainings("multimodal_intra", both, Setting(), seed=0)["s1"]
    trial = planner.trial("multimodal_intra", both, Setting(), seed=0)
    assert trial.config.encoder_paths == {"s1": encoder.encoder_dir, "s2": encoder.encoder_dir}
    # Four images of each pair pass through the encoders, where `multimodal` has two.
    assert encoder.config.num_steps == config.pretrain.num_steps // 2
    for job in (encoder, trial):
        trainings.do(job)
    assert math.isfinite(result_of(encoder.folder)["metrics"]["train_loss"])
    assert outcomes.test_scores(trial).confusion.sum() > 0


def test_ground_that_pretraining_saw_is_refused_with_the_list(data, tmp_path):
    seen = make_shards.make_version(tmp_path / "flood", kind="labels", label_schema="water", seed=2)
    config = make_config(tmp_path)
    with pytest.raises(
        DataError,
        match=r"8 of 24 unlabeled train patches overlap .* all are in .*overlaps-flood\.json",
    ):
        check(config, dataclasses.replace(data, tasks={"flood": seen}))
    listed = audit.from_json(Path(config.claim_dir, "overlaps-flood.json").read_text()).overlaps
    assert len({overlap.pair_patch_id for overlap in listed}) == 8
    assert {overlap.label_split for overlap in listed} == {"eval", "test"}


def test_a_class_that_cannot_be_learned_is_refused(data, tmp_path):
    path = make_shards.make_version(
        tmp_path / "flood", kind="labels", label_schema="water", seed=2, north=1.0
    )
    found = manifest.read(path)
    counts = found.num_pixels_per_class | {"train": {"0": 5}}
    (path / "manifest.json").write_text(
        dataclasses.replace(found, num_pixels_per_class=counts).to_json()
    )
    with pytest.raises(
        DataError, match=r"task 'flood': class 'water' has \d+ pixels in test and none in train"
    ):
        check(make_config(tmp_path), dataclasses.replace(data, tasks={"flood": path}))


def test_a_share_of_the_labels_that_is_no_patch_is_refused(data, tmp_path):
    # Not the cell that decides, whose trials come first.
    config = make_config(tmp_path, fractions=(0.01, 0.2))
    with pytest.raises(
        DataError, match=r"0\.01 of the 60 labelled train patches of 'flood' is less than one patch"
    ):
        check(config, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": "event"}, "claim.unit is event, but 7 of 20 patches have no event"),
        ({"draw": "event"}, "claim.draw is event, but 20 of 60 train patches"),
    ],
)
def test_labels_without_events_are_refused_before_anything_is_trained(
    data, tmp_path, changes, message
):
    with pytest.raises(DataError, match=message):
        check(make_config(tmp_path, **changes), data)
    assert not list(tmp_path.glob("claim/**/*"))


def test_a_job_that_ends_in_nan_is_named_with_the_setting_to_lower(data, tmp_path, monkeypatch):
    config = make_config(tmp_path)
    pairs, labels = (
        Version(path=str(path), manifest=manifest.read(path))
        for path in (data.pairs, data.tasks["flood"])
    )
    planner = Planner(config, config.claim, pairs, {"flood": labels})

    def fail(job):
        raise NonFiniteLossError("loss must be finite, got nan at step 1 of 2")

    monkeypatch.setattr(training_jobs, "train_encoder", fail)
    monkeypatch.setattr(trainings, "_try", fail)
    encoder = planner.pretrainings("simclr", PRIMARY, Setting(), seed=1)["s1"]
    probe = planner.trial("simclr", PRIMARY, Setting(), seed=2)
    scratch = planner.trial("scratch", PRIMARY, Setting(), seed=0, is_permuted=True)
    for job, message in (
        (
            encoder,
            r"pretraining simclr_s1, seed 1: loss .*: lower pretrain\.optimizer\.learning_rate",
        ),
        (
            probe,
            r"trial simclr in flood-s1-linear-0\.2, seed 2: .*: lower claim\.linear_learning_rate",
        ),
        (
            scratch,
            r"scratch in .*, seed 0, labels of other patches: .* segment\.optimizer\.learning",
        ),
    ):
        with pytest.raises(RefusedError, match=message):
            trainings.do(job)
        assert not Path(job.results[-1]).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("multimodal", "random")}, "arms must hold 'simclr'"),
        ({"num_seeds": 1}, "num_seeds must be at least 3, got 1: the verdict needs the spread"),
        ({"fractions": (0.5, 1.5)}, "fractions must be above 0 and at most 1, got 1.5"),
        ({"fractions": (1.0,)}, r"primary.fraction must be among \[1.0\], got 0.2"),
        ({"settings": ()}, "settings must hold at least one value"),
        (
            {"primary": Cell(task="snow", inputs="s1", fraction=0.2)},
            "claim.primary.task must be one of the tasks",
        ),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_config(tmp_path, **changes)
