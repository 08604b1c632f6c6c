import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from beam_jobs.contracts.published import read_card
from models.config import ObjectiveName
from models.published import export, parity
from models.scores.score_file import SCORES_NAME, read_scores
from models.scores.scoring import get_threshold, score_patches
from models.scores.summary import summarize
from tests.data.runs.repository import REPOSITORY

# Half a minute of tracing: each objective is compiled for three ways of taking one
# step.
pytestmark = pytest.mark.e2e

WORKER = Path(__file__).with_name("replica_parity_worker.py")
# The controls learn by the objective "multimodal".
OBJECTIVES = [name for name in get_args(ObjectiveName) if name not in ("shuffled", "none")]


@pytest.fixture(scope="module")
def folder(pairs, labels, tmp_path_factory):
    """The folder in which a process with two logical CPUs wrote its results."""
    folder = tmp_path_factory.mktemp("parity")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    paths = (folder / "results.npz", pairs.path, labels.path, folder)
    command = [sys.executable, str(WORKER), *map(str, paths)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def results(folder):
    found = np.load(folder / "results.npz")
    assert found["num_replicas"] == 2
    return found


def relative_difference(one, two):
    return float(np.abs(one - two).max() / np.abs(one).max())


# The ResNet with synchronized batch normalization sums over thousands of pixels in
# another order: hence its 1e-4.
@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("contrastive_without_batch_norm", 1e-5),
        ("masked_crossentropy", 1e-5),
        ("contrastive_resnet", 1e-4),
        ("weighted_contrastive", 1e-5),
        ("weighted_crossentropy", 1e-5),
        ("balanced_focal", 1e-5),
        ("dice", 1e-5),
        ("lovasz", 1e-5),
        ("sum_of_losses", 1e-5),
        ("distillation", 1e-5),
    ],
)
def test_two_replicas_take_the_step_of_one(results, case, tolerance):
    one, two = (
        {key: results[f"{case}/{name}/{key}"] for key in ("loss", "gradient", "weights")}
        for name in ("one", "two")
    )
    assert float(two["loss"]) == pytest.approx(float(one["loss"]), rel=1e-5)
    assert np.abs(one["gradient"]).max() > 1e-3
    assert relative_difference(one["gradient"], two["gradient"]) < tolerance
    assert relative_difference(one["weights"], two["weights"]) < tolerance


def test_batch_statistics_are_those_of_the_global_batch(results):
    one, two = (results[f"contrastive_resnet/{name}/moving_statistics"] for name in ("one", "two"))
    assert one.size > 100
    assert relative_difference(one, two) < 1e-5


def test_two_replicas_leave_out_the_step_that_overflows_on_one_of_them(results):
    one, two = results["scaled_lars/one"], results["scaled_lars/two"]
    assert np.abs(one).max() < 10.0
    assert relative_difference(one, two) < 1e-5


def test_error_names_the_patches_of_both_replicas(results):
    message = str(results["message"])
    assert message.startswith("loss must be finite, got nan at step 1 of 3")
    assert "its 8 patches" in message
    assert message.endswith("patch-0, patch-1, patch-2, patch-3, patch-4, ...")


def test_checkpoint_of_two_replicas_goes_on_with_one(results):
    assert relative_difference(results["undisturbed"], results["resumed"]) < 1e-5


def test_two_replicas_keep_the_step_of_one_on_both(results):
    one, two = (
        {key: results[f"best/{name}/{key}"] for key in ("steps", "scores", "weights")}
        for name in ("one", "two")
    )
    assert one["steps"].tolist() == two["steps"].tolist() == [3, 5]
    np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-5)
    assert two["weights"].shape[0] == 2
    np.testing.assert_array_equal(two["weights"][0], two["weights"][1])
    np.testing.assert_allclose(one["weights"][0], two["weights"][0], atol=1e-5)


@pytest.mark.parametrize("case", ["adamw", "paced"])
def test_three_steps_of_adamw_are_the_same(results, case):
    one, two = results[f"{case}/one/weights"], results[f"{case}/two/weights"]
    assert one.size > 50
    assert relative_difference(one, two) < 1e-5


def test_paces_change_the_steps(results):
    assert relative_difference(results["adamw/one/weights"], results["paced/one/weights"]) > 1e-2


@pytest.mark.parametrize("name", ["one", "two"])
def test_levels_begin_one_after_the_other_on_any_number_of_replicas(results, name):
    # The head, then the levels from the deepest to the stem: each moves with the step
    # after its first one.
    for part, first_move in enumerate((1, 2, 3, 4, 5)):
        weights = results[f"gradual/{name}/part_{part}"]
        assert len(weights) == 6
        np.testing.assert_array_equal(
            weights[:first_move], np.broadcast_to(weights[0], (first_move, weights.shape[1]))
        )
        assert (np.abs(np.diff(weights[first_move - 1 :], axis=0)).max(axis=1) > 1e-5).all()


def test_gradual_unfreezing_takes_the_same_steps_on_two_replicas(results):
    for part in range(5):
        one, two = (results[f"gradual/{name}/part_{part}"] for name in ("one", "two"))
        assert relative_difference(one - one[0], two - two[0]) < 1e-2


@pytest.mark.parametrize("variant", ["two/whole", "two/parts"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_replicas_take_the_step_of_one_by_every_objective(results, objective, variant):
    expected, got = (
        {
            key.rsplit("/", 1)[1]: results[key]
            for key in results.files
            if key.startswith(f"objectives/{objective}/{name}/")
        }
        for name in ("one/whole", variant)
    )
    assert {"loss", "temperature", "gradient", "weights"} <= set(expected)
    assert np.abs(expected["gradient"]).max() > 1e-3
    if objective != "decur":
        # 2 of the 8 x 7 negatives are near each other, on different replicas.
        assert float(expected["near_negative_fraction"]) == pytest.approx(2 / 56)
    for key, value in expected.items():
        assert np.abs(got[key] - value).max() <= 1e-5 * np.abs(value).max(), key


def test_checks_under_two_replicas_find_what_one_finds(folder, pairs, tmp_path):
    sys.path.insert(0, str(WORKER.parent))
    import whole_trainings

    two = json.loads((folder / "metrics.json").read_text())
    one = whole_trainings.run_pretraining(pairs.path, tmp_path)
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
