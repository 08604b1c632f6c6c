"""Whole trainings on two replicas: their health checks, and the threshold they publish."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repository import REPOSITORY

from beam_jobs.contracts.published import read_card
from models.published import export, parity
from models.scores.score_file import SCORES_NAME, read_scores
from models.scores.scoring import get_threshold, score_patches
from models.scores.summary import summarize

pytestmark = pytest.mark.e2e

WORKER = Path(__file__).with_name("two_replica_worker.py")


@pytest.fixture(scope="module")
def folder(pairs, labels, tmp_path_factory):
    """The folder in which a process with two logical CPUs wrote its result and a segmenter."""
    folder = tmp_path_factory.mktemp("two-replicas")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(WORKER), str(pairs.path), str(labels.path), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "result.json").read_text())["num_replicas"] == 2
    return folder


def test_checks_under_two_replicas_find_what_one_finds(folder, pairs, tmp_path):
    sys.path.insert(0, str(WORKER.parent))
    import two_replica_worker

    two = json.loads((folder / "result.json").read_text())["metrics"]
    one = two_replica_worker.run_pretraining(pairs.path, tmp_path)
    assert set(two) == set(one)
    for name in (
        "alignment/s1_s2",
        "uniformity/s1",
        "effective_rank/s2",
        "spread/s1",
        "recall_at_5/s1_to_s2",
    ):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name


def test_threshold_of_a_model_of_two_replicas_is_the_one_that_is_published(folder, labels):
    published = str(folder / "segmented" / "model")
    kept, model = (
        read_scores(f"{published}/assets.extra/{SCORES_NAME}"),
        export.load_segmenter(published),
    )
    assert kept.threshold == get_threshold(model) == read_card(published)["threshold"] != 0.5
    again = score_patches(model, labels.files["eval"], kept.class_names, batch_size=3)
    np.testing.assert_allclose(again.confusion, kept.confusion, atol=2)
    # Mirrored weights are measured and put back as those of one replica.
    chosen = read_card(published)["evaluations"]
    assert [one["step"] for one in chosen["history"]] == [1, 2]
    assert summarize(again)["mean_iou"] == pytest.approx(chosen["best_score"], abs=1e-3)
    assert (
        max(comparison.max_abs_difference for comparison in parity.compare_with_keras(published))
        < 1e-4
    )
