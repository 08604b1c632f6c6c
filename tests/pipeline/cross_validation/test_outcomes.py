"""The document of a task holds the scores of each fold, and notes on them."""

import dataclasses
import json

import numpy as np
import pytest

from beam_jobs.contracts import settings
from models.scores.score_file import write_scores
from models.scores.summary import summarize
from pipeline.config import RunConfig
from pipeline.cross_validation.folds import Fold, fold_configs
from pipeline.cross_validation.outcomes import Outcome, describe
from pipeline.cross_validation.trainings import FoldTraining
from pipeline.training_jobs import read_version
from tests.data.networks import make_scores
from tests.data.shards import make_shards


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    return read_version(make_shards.make_version(root, kind="labels", label_schema="water"))


@pytest.fixture
def make_outcome(values, version, tmp_path):
    values["pairs"]["split"] = {"folds": 3}
    config = settings.from_dict(RunConfig, values)

    def make_outcome(by_fold):
        jobs = []
        for number, scores in enumerate(by_fold):
            folder = tmp_path / f"fold-{number}"
            folder.mkdir()
            write_scores(folder / "test.npz", scores)
            (folder / "result.json").write_text(json.dumps({"seconds": 2.0}))
            jobs.append(
                FoldTraining(config=config.tasks[0].segment, version=version, folder=str(folder))
            )
        folds = [Fold(config=one, labels={"flood": version}) for one in fold_configs(config)]
        return Outcome(task=config.tasks[0], folds=folds, jobs=jobs)

    return make_outcome


def test_each_fold_has_its_scores_and_events_in_several_folds_are_told(make_outcome):
    by_fold = [make_scores.make_scores(seed=seed, num_blocks=2) for seed in range(3)]
    # One event is in the first fold only.
    event = np.where(by_fold[0].event == "flood-b", "flood-c", by_fold[0].event)
    by_fold[0] = dataclasses.replace(by_fold[0], event=event)
    pooled, entry = describe(make_outcome(by_fold))
    assert len(pooled) == sum(map(len, by_fold))
    for number, (fold, scores) in enumerate(zip(entry["folds"], by_fold, strict=True)):
        assert (fold["fold"], fold["num_units"], fold["seconds"]) == (number, 2, 2.0)
        assert fold["scores"]["mean_iou"] == summarize(scores)["mean_iou"]
    (note,) = [note for note in entry["notes"] if "events" in note]
    assert note.startswith("2 of 3 events have blocks in several folds")
    # The folds of `make_scores` have the same two blocks.
    assert entry["pooled"]["num_units"] == 2
    assert any(note.startswith("2 blocks are too few for an interval") for note in entry["notes"])
    json.dumps(entry, allow_nan=False)


def test_a_class_without_a_test_pixel_is_named(make_outcome):
    by_fold = [make_scores.make_scores(seed=seed) for seed in range(3)]
    for number, scores in enumerate(by_fold):
        confusion = scores.confusion.copy()
        confusion[:, 1] = 0
        by_fold[number] = dataclasses.replace(scores, confusion=confusion)
    _, entry = describe(make_outcome(by_fold))
    assert "No fold has a test pixel of class1: nothing was measured there." in entry["notes"]
