"""A whole cross-validation of small simulated scenes: every patch tested once, nothing twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from models.scores.patch_scores import concatenate
from models.scores.score_file import read_scores
from models.scores.summary import interval, summarize
from pipeline.cross_validation import page, validation
from tests.data.runs.run_pipeline import run_pipeline_here

# It trains four models for two steps each, and publishes none.
pytestmark = pytest.mark.usefixtures("eager_steps")

NUM_FOLDS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


def make_values(root):
    encoder = {"backbone": "small", "embedding_dim": 8, "norm": "group"}
    segment = {
        "sensors": ["s1"],
        "label_schema": "water",
        "encoder": encoder,
        # A fold without a pretraining takes seconds.
        "regime": "scratch",
        "num_steps": 2,
        "global_batch_size": 4,
    }
    return {
        "name": "tiny",
        "root": str(root),
        "catalogs": [
            {
                "layout": "simulated",
                "simulate": {"num_places": 3, "num_dates": 1, "size_px": 160, "seed": 5},
            }
        ],
        "pairs": {
            "patch": {"size_px": 32},
            "quality": {"min_valid_fraction": 0.05, "max_cloud_fraction": 1.0},
            "split": {"block_size_km": 0.8, "folds": NUM_FOLDS},
        },
        "pretrain": {"encoder": encoder, "num_steps": 2, "global_batch_size": 4},
        "tasks": [
            {
                "name": "flood",
                "label": {"schema": "water", "label_from": "s1"},
                "segment": segment,
            }
        ],
    }


def validate(root, *options):
    """Run the command, and return what it printed."""
    config = root / "run.yaml"
    config.write_text(yaml.safe_dump(make_values(root)))
    ended = run_pipeline_here("cross-validate", "--config", str(config), *options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def document(root):
    return json.loads(validate(root, "--json"))


def folders(document) -> list[Path]:
    return [Path(fold["folder"]) for fold in document["tasks"]["flood"]["folds"]]


def times(root) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.glob("folds/*/*/*") if path.is_file()}


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_the_pooled_scores_are_those_of_all_test_patches_each_once(document, root):
    entry = document["tasks"]["flood"]
    parts = [read_scores(folder / "test.npz") for folder in folders(document)]
    joined = concatenate(parts)
    assert len(set(joined.patch_id)) == len(joined) == entry["pooled"]["num_patches"]
    blocks = [set(part.block) for part in parts]
    assert not set.intersection(*blocks)
    assert len(set.union(*blocks)) == sum(map(len, blocks)) == entry["pooled"]["num_units"]
    assert entry["pooled"]["unit"] == "block"
    expected = summarize(joined)
    assert entry["pooled"]["scores"]["mean_iou"] == expected["mean_iou"]
    found = interval(joined, "mean_iou")
    assert entry["pooled"]["intervals"]["mean_iou"] == [found.low, found.high]
    pooled = read_scores(root / "folds" / "flood.npz")
    np.testing.assert_array_equal(pooled.confusion, joined.confusion)


@pytest.mark.e2e
def test_each_fold_uses_its_own_threshold_of_eval(document):
    for folder, fold in zip(folders(document), document["tasks"]["flood"]["folds"], strict=True):
        judged, tested = (read_scores(folder / f"{split}.npz") for split in ("eval", "test"))
        assert judged.threshold == tested.threshold == fold["threshold"]
        assert fold["num_patches"]["test"] == len(tested)
        assert fold["num_patches"]["eval"] == len(judged)
        assert not set(judged.block) & set(tested.block)
        # Nothing is left of an attempt, since it is done.
        assert not (folder / "checkpoints").exists()


@pytest.mark.e2e
def test_document_and_page_tell_the_pooled_score(document, root):
    assert json.loads((root / "folds" / validation.DOCUMENT_FILE).read_text()) == document
    entry = document["tasks"]["flood"]
    sentence = page.sentence("flood", entry)
    assert f"{entry['pooled']['scores']['mean_iou']:.3f}" in sentence
    assert "pooled over 3 folds" in sentence
    html = (root / "folds" / validation.PAGE_FILE).read_text()
    assert sentence in html
    # Two classes and the folds, each table with its headings.
    assert html.count("<tr>") == 1 + 2 + 1 + NUM_FOLDS
    assert entry["pooled"]["num_labelled_patches"] > entry["pooled"]["num_patches"]
    assert "labelled patches are tested. The others reach into blocks" in html


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_second_time_finds_all_and_a_killed_one_goes_on(document, root):
    before = times(root)
    shown = validate(root)
    assert "flood: scores on the pooled test split" in shown
    assert "flood: folds, each with its own model" in shown
    assert page.sentence("flood", document["tasks"]["flood"]) in shown
    assert f"Page: {root}/folds/{validation.PAGE_FILE}" in shown
    assert times(root) == before
    # As if the command had been killed while it scored the second fold.
    lost = folders(document)[1]
    (lost / "result.json").unlink()
    again = json.loads(validate(root, "--json"))
    changed = {path for path, time in times(root).items() if before.get(path) != time}
    assert {path.parent for path in changed} == {lost}
    assert again["tasks"]["flood"]["pooled"] == document["tasks"]["flood"]["pooled"]
