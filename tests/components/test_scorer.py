"""Scorer on TFX's artifacts: its scores equal TFMA's for the same model and data."""

import json

import pytest
from tfx.types.experimental import simple_artifacts

from beam_jobs.contracts import labels
from components import evaluation, scorer
from models.scores import score_file, slices
from models.scores.summary import summarize
from tests.data.runs.make_artifacts import artifact_of, import_version
from tests.data.shards import make_shards


def score(model, version, root):
    """Return the folder that the component wrote; only the test split exists."""
    examples, manifest = import_version(version, root)
    for split in ("train", "eval"):
        (root / "examples" / f"Split-{split}").rename(root / split)
    output = artifact_of(simple_artifacts.File, root / "scores")
    scorer.Scorer.test_call(
        model=model, examples=examples, manifest=manifest, scores=output, batch_size=3, code="x"
    )
    return root / "scores"


@pytest.fixture(scope="module")
def folder(model, water_version, tmp_path_factory):
    return score(model, water_version, tmp_path_factory.mktemp("scored"))


@pytest.mark.e2e
def test_iou_of_the_kept_counts_equals_that_of_tfma_on_every_slice(
    folder, model, water_version, evaluate, values_of, tmp_path
):
    config = evaluation.create_eval_config(labels.WATER, min_mean_iou=0.0, min_iou={})
    result = evaluate(
        f"{model.uri}/Format-Serving", water_version, config, str(tmp_path / "evaluation")
    )
    kept = score_file.read_scores(scorer.scores_path(str(folder)))
    assert len(kept) == 8
    parts = {(): kept}
    parts |= {
        (tuple(name.split("=")),): part
        for name, part in slices.by_slice(kept, "orbit_state").items()
    }
    assert len(parts) == 3
    for key, part in parts.items():
        figures, expected = summarize(part), values_of(result, key)
        truth = part.confusion.sum(axis=(0, 2))
        figures |= {"num_pixels/dry": truth[0], "num_pixels/water": truth[1]}
        assert set(expected) == {
            *("mean_iou", "pooled_iou/dry", "pooled_iou/water"),
            *("num_pixels/dry", "num_pixels/water"),
        }
        for name, value in expected.items():
            assert figures[name] == pytest.approx(value, abs=1e-12), (key, name)
    assert 0.0 < summarize(kept)["pooled_iou/water"] < 1.0


@pytest.mark.e2e
def test_document_holds_the_scores_of_the_counts_and_of_each_event(folder):
    kept = score_file.read_scores(folder / "test_scores.npz")
    document = json.loads((folder / "test_scores.json").read_text())
    assert (document["split"], document["num_patches"], document["threshold"]) == (
        "test",
        8,
        kept.threshold,
    )
    assert document["scores"]["pooled_iou/water"] == summarize(kept)["pooled_iou/water"]
    events = {
        name: one["num_patches"]
        for name, one in document["slices"].items()
        if name.startswith("event=")
    }
    assert events == {"event=Ghana": 3, "event=Spain": 2, "event=unknown": 3}
    assert {path.name for path in folder.iterdir()} == {"test_scores.npz", "test_scores.json"}
    assert kept.event.tolist() == ["Ghana", "", "Spain", "Ghana", "", "Spain", "Ghana", ""]


@pytest.mark.e2e
def test_shards_without_labels_are_refused(model, pairs_version, tmp_path):
    with pytest.raises(
        ValueError,
        match="manifest: the shards have no label schema, so nothing can be scored on them",
    ):
        score(model, pairs_version, tmp_path)
    other = make_shards.make_version(
        tmp_path / "other", kind="labels", label_schema="dynamic_world", num_patches=6
    )
    with pytest.raises(ValueError, match="class_names must be 2, one for each class"):
        score(model, other, tmp_path / "again")
