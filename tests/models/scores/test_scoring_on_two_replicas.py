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

WORKER = Path(__file__).with_name("segment_worker.py")


@pytest.mark.e2e
def test_threshold_of_a_model_of_two_replicas_is_the_one_that_is_published(labels, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(WORKER), str(labels.path), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "2"
    published = str(tmp_path / "model")
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
