"""Trainings of a fold: which encoder they start from, and what names their folder."""

import dataclasses
from pathlib import PurePath

import pytest

from beam_jobs.contracts import settings
from pipeline.config import RunConfig
from pipeline.cross_validation.folds import Fold, fold_configs
from pipeline.cross_validation.outcomes import encoder_text
from pipeline.cross_validation.trainings import Planner
from pipeline.training_jobs import read_version
from tests.data.shards import make_shards


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    root = tmp_path_factory.mktemp("versions")
    labels = make_shards.make_version(root / "flood", kind="labels", label_schema="water")
    return read_version(labels), read_version(make_shards.make_version(root / "pairs", seed=1))


@pytest.fixture
def config(values, tmp_path):
    values["root"] = str(tmp_path / "run")
    values["pairs"]["split"] = {"folds": 3}
    return settings.from_dict(RunConfig, values)


@pytest.fixture
def folds(config, versions):
    labels, pairs = versions
    return [
        Fold(config=fold_config, labels={"flood": labels}, pairs=pairs)
        for fold_config in fold_configs(config)
    ]


@pytest.fixture
def published(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "weights").write_text("one")
    return tmp_path / "encoder"


def with_segment(task, **changes):
    return dataclasses.replace(task, segment=dataclasses.replace(task.segment, **changes))


def test_each_fold_starts_from_the_encoder_that_it_pretrained(config, folds):
    planner, (task,) = Planner(), config.tasks
    jobs = [planner.training(fold, task) for fold in folds]
    for fold, job in zip(folds, jobs, strict=True):
        encoder = planner.pretraining(fold)
        assert job.config.encoder_paths == {"s1": encoder.encoder_dir}
        assert encoder.folder.startswith(fold.folder)
        assert job.folder.startswith(fold.folder)
    assert encoder_text(task) == (
        "Each fold pretrained an encoder of its own, on pairs of its train blocks only."
    )
    # What decides the encoder decides the segmenter, and so do labels and settings.
    longer = dataclasses.replace(
        folds[0],
        config=dataclasses.replace(
            folds[0].config, pretrain=dataclasses.replace(config.pretrain, num_steps=3)
        ),
    )
    assert planner.training(longer, task).folder != jobs[0].folder
    assert planner.training(folds[0], with_segment(task, seed=1)).folder != jobs[0].folder
    assert planner.training(folds[0], task) == jobs[0]


def test_a_published_encoder_is_named_by_its_content_and_the_result_says_what_it_saw(
    config, folds, published
):
    task = with_segment(config.tasks[0], encoder_paths={"s1": str(published)})
    job = Planner().training(folds[0], task)
    assert job.config.encoder_paths == {"s1": str(published)}
    assert f"from {published}, which may have seen images of the test blocks" in encoder_text(task)
    moved = published.rename(published.with_name("moved"))
    task = with_segment(task, encoder_paths={"s1": str(moved)})
    again = Planner().training(folds[0], task)
    assert PurePath(again.folder).name == PurePath(job.folder).name
    (moved / "weights").write_text("two")
    other = Planner().training(folds[0], task)
    assert PurePath(other.folder).name != PurePath(job.folder).name


def test_a_sensor_without_a_published_encoder_gets_that_of_the_fold(config, folds, published):
    paths = {"s2": str(published)}
    task = with_segment(config.tasks[0], sensors=("s1", "s2"), encoder_paths=paths)
    planner = Planner()
    expected = {"s1": planner.pretraining(folds[0]).encoder_dir, **paths}
    assert planner.training(folds[0], task).config.encoder_paths == expected
    text = encoder_text(task)
    assert "Each fold pretrained" in text
    assert "may have seen" in text


def test_from_scratch_no_encoder_is_read_or_trained(config, folds):
    paths = {"s1": "nowhere"}
    task = with_segment(config.tasks[0], regime="scratch", encoder_paths=paths)
    without_pairs = dataclasses.replace(folds[0], pairs=None)
    assert Planner().training(without_pairs, task).config.encoder_paths == {}
    assert encoder_text(task).startswith("Encoders are new in each fold")
