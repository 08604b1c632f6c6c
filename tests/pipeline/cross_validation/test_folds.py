"""Data of the folds: what would end in a score that says nothing is refused before training."""

import dataclasses

import pytest

from beam_jobs.contracts import settings
from beam_jobs.errors import DataError
from pipeline.config import RunConfig
from pipeline.cross_validation.folds import Fold, check_labels, fold_configs
from pipeline.training_jobs import Version, read_version
from tests.data.shards import make_shards


@pytest.fixture
def config(values):
    values["pairs"]["split"] = {"folds": 3, "seed": 4, "buffer_m": 10.0}
    return settings.from_dict(RunConfig, values)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    return read_version(make_shards.make_version(root, kind="labels", label_schema="water"))


def make_folds(config, version, test_pixels):
    """Folds with these pixels per class in their test splits."""
    return [
        Fold(
            config=fold_config,
            labels={
                "flood": Version(
                    path=version.path,
                    manifest=dataclasses.replace(
                        version.manifest,
                        num_pixels_per_class={"train": {"0": 9, "1": 9}, "test": pixels},
                    ),
                )
            },
        )
        for fold_config, pixels in zip(fold_configs(config), test_pixels, strict=True)
    ]


def test_folds_differ_in_folder_and_fold_only_and_share_the_catalogs(config):
    found = list(fold_configs(config))
    assert [fold.pairs.split.fold for fold in found] == [0, 1, 2]
    assert [fold.root for fold in found] == [f"runs/test/folds/fold-{i}" for i in range(3)]
    for fold in found:
        assert fold.catalogs_dir == config.catalogs_dir
        split = dataclasses.replace(fold.pairs.split, fold=0)
        assert dataclasses.replace(fold.pairs, split=split) == config.pairs
        assert fold.task_dir(config.tasks[0]).startswith(fold.root)


def test_a_class_that_one_fold_does_not_test_is_fine_and_one_that_none_tests_is_named(
    config, version
):
    task = config.tasks[0]
    check_labels(task, make_folds(config, version, [{"0": 5}, {"0": 5, "1": 1}, {"0": 5}]))
    with pytest.raises(
        DataError,
        match="task 'flood': class 'water' has no pixel in the test split of any of the 3 folds",
    ):
        check_labels(task, make_folds(config, version, [{"0": 5}, {"0": 5, "1": 0}, {"0": 5}]))


def test_a_fold_with_less_than_a_batch_to_train_on_is_refused_before_any_training(config, version):
    task = config.tasks[0]
    large = dataclasses.replace(task.segment, global_batch_size=25)
    with pytest.raises(
        DataError,
        match=r"fold-0 of task 'flood' has 24 train patches, but segment\.global_batch_size is 25",
    ):
        check_labels(
            dataclasses.replace(task, segment=large),
            make_folds(config, version, [{"0": 5, "1": 5}] * 3),
        )
