"""Controls on made-up scores: each fails when it has learned, and the page says so."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from beam_jobs.errors import DataError
from models.scores.score_file import write_scores
from pipeline.claim_check import controls, page
from pipeline.claim_check.config import Cell, ClaimConfig, Setting
from pipeline.claim_check.outcomes import Outcomes, TrialKey
from pipeline.training_jobs import RESULT, scores_path
from tests.data.networks import make_scores

CELL = Cell(task="flood", inputs="s1", fraction=0.5)
CLAIM = ClaimConfig(
    primary=CELL,
    fractions=(0.5,),
    arms=("multimodal", "simclr", "shuffled", "random"),
    num_seeds=3,
    num_resamples=200,
)
NUM_PIXELS = 64
CHANCE = math.log(8)


def confusion(accuracy, rng):
    """Counts [M, K, K] of two classes that a model tells apart with `accuracy`."""
    right = rng.binomial(NUM_PIXELS, accuracy, (12, 2))
    return np.stack([[[a, NUM_PIXELS - a], [NUM_PIXELS - b, b]] for a, b in right])


def make_trial(folder, accuracy, seed):
    scores = make_scores.make_scores(num_classes=2)
    scores = dataclasses.replace(scores, confusion=confusion(accuracy, np.random.default_rng(seed)))
    folder.mkdir(parents=True)
    for split in ("eval", "test"):
        write_scores(scores_path(str(folder), split), scores)
    return SimpleNamespace(folder=str(folder), num_patches=12)


def make_outcomes(root, *, shuffled_accuracy=0.5, shuffled_loss=CHANCE, best=0.9, second=0.8):
    """Trials of all arms, with an encoder for each seed of `shuffled`."""
    accuracies = {
        "multimodal": best,
        "simclr": second,
        "shuffled": shuffled_accuracy,
        "random": 0.5,
    }
    trials = {
        TrialKey(arm, CELL, seed): make_trial(
            root / f"{arm}-{seed}", accuracy, 100 * seed + len(arm)
        )
        for arm, accuracy in accuracies.items()
        for seed in range(3)
    }
    encoder = root / "encoder"
    encoder.mkdir()
    (encoder / RESULT).write_text(json.dumps({"metrics": {"train_loss": shuffled_loss}}))
    planner = SimpleNamespace(pretrainings=lambda *_: {"s1": SimpleNamespace(folder=str(encoder))})
    return Outcomes(
        claim=CLAIM, planner=planner, chosen=dict.fromkeys(accuracies, Setting()), trials=trials
    )


def check(outcomes, root, permuted_accuracy=0.5):
    permuted = {
        "simclr": [
            make_trial(root / f"permuted-{seed}", permuted_accuracy, seed) for seed in range(3)
        ]
    }
    return {entry["name"]: entry for entry in controls.check_controls(outcomes, permuted, 8)}


def test_controls_that_learned_nothing_are_ok(tmp_path):
    found = check(make_outcomes(tmp_path), tmp_path)
    assert list(found) == ["shuffled loss", "shuffled over random", "permuted labels, simclr"]
    assert all(entry["ok"] for entry in found.values())
    assert (
        found["shuffled loss"]["text"] == "Shuffled pairs: the loss is 2.079; guessing has 2.079."
    )
    # With two equally frequent classes and half of the answers right, IoU is a third.
    assert found["permuted labels, simclr"]["difference"]["theirs"] == pytest.approx(
        1 / 3, abs=0.001
    )


@pytest.mark.parametrize(
    ("made", "permuted_accuracy", "failed"),
    [
        ({"shuffled_loss": CHANCE - 0.1}, 0.5, "shuffled loss"),
        ({"shuffled_accuracy": 0.7}, 0.5, "shuffled over random"),
        ({}, 0.8, "permuted labels, simclr"),
    ],
)
def test_a_control_that_learned_fails_and_the_verdict_says_so(
    tmp_path, made, permuted_accuracy, failed
):
    outcomes = make_outcomes(tmp_path, **made)
    found = check(outcomes, tmp_path, permuted_accuracy)
    assert [name for name, entry in found.items() if not entry["ok"]] == [failed]
    described = outcomes.describe(CELL)
    assert described["verdict"] == "supported"
    claim = {
        "primary": described,
        "score": "mean IoU",
        "confidence": 0.95,
        "num_seeds": 3,
        "controls": list(found.values()),
    }
    assert page.sentence(claim).endswith(
        f"DO NOT TRUST THE VERDICT: controls that must not learn have learned ({failed})."
    )
    claim["controls"] = [entry for entry in claim["controls"] if entry["ok"]]
    assert "TRUST" not in page.sentence(claim)


def test_arms_that_are_all_at_chance_cannot_decide(tmp_path):
    # The arms differ, but none is better than calling everything dry.
    outcomes = make_outcomes(tmp_path, best=0.45, second=0.3, shuffled_accuracy=0.3)
    described = outcomes.describe(CELL)
    assert described["over"]["simclr"]["low"] > 0
    assert (described["verdict"], described["arms_above_floor"]) == ("cannot decide", [])
    # Half of the pixels are of each class: always the same answer has IoU 1/2 and 0.
    assert described["constant"] == pytest.approx(0.25)
    claim = {"score": "mean IoU", "confidence": 0.95, "num_seeds": 3, "controls": []}
    text = page.sentence(claim | {"primary": described})
    assert "Verdict: cannot decide." in text
    assert "always the same answer (25.0 % mean IoU)" in text


def test_arms_no_better_than_with_labels_of_other_patches_cannot_decide(tmp_path):
    outcomes = make_outcomes(tmp_path)
    good = {
        arm: [make_trial(tmp_path / f"p-{arm}-{seed}", 0.95, seed) for seed in range(3)]
        for arm in CLAIM.arms
    }
    assert outcomes.describe(CELL)["verdict"] == "supported"
    assert outcomes.describe(CELL, good)["verdict"] == "cannot decide"


def test_a_trial_whose_scores_are_nan_is_named_and_not_averaged_in(tmp_path):
    outcomes = make_outcomes(tmp_path)
    path = tmp_path / "simclr-1" / "test.npz"
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["loss"][0] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(
        DataError,
        match=r"simclr-1/test\.npz: .* loss must be finite.*: delete \S*/simclr-1 and run",
    ):
        outcomes.describe(CELL)


def test_the_page_names_the_classes_that_no_test_patch_holds(tmp_path):
    described = make_outcomes(tmp_path).describe(CELL)
    claim = {
        "name": "tiny",
        "config": {"score": "mean_iou"},
        "config_sha256": "0",
        "score": "mean IoU",
        "confidence": 0.95,
        "num_seeds": 3,
        "primary": described,
        "cells": [described],
        "controls": [],
        "settings": [],
        "seconds": {},
        "data": {},
    }
    text = page.render_page(claim | {"unscored_classes": {"flood": ["snow", "bare"]}}, "<svg/>")
    expected = "Not scored in flood, because no test patch holds them: snow, bare."
    assert expected in text.replace("\n", " ").replace("  ", " ")
    assert "Not scored" not in page.render_page(
        claim | {"unscored_classes": {"flood": []}}, "<svg/>"
    )
