"""A claim check from data to page: encoders of all arms, their trials, the comparison.

RunConfig with a `claim` -> `claim.json`, `claim.html` and curves in the run's `claim` folder. Called by `pipeline/__main__.py`.
What is done already is found again, so a killed check goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from beam_jobs import audit
from beam_jobs.contracts import manifest, settings
from beam_jobs.contracts.labels import get_schema
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.errors import DataError
from models.scores.patch_scores import PatchScores
from models.scores.score_file import read_scores
from pipeline.claim_check import comparison, processes, trainings
from pipeline.claim_check.arms import TUNED
from pipeline.claim_check.config import Arm, Cell, ClaimConfig, Setting
from pipeline.claim_check.curves import draw_curves
from pipeline.claim_check.jobs import Planner, Pretraining, Trial, Version, unique
from pipeline.claim_check.page import points, render_page
from pipeline.config import RunConfig
from pipeline.data_build import BuiltData

Stage = Callable[[str], AbstractContextManager[None]]
OnProgress = Callable[[int, int], None]

CLAIM_FILE = "claim.json"
PAGE_FILE = "claim.html"
NUM_NAMED_OVERLAPS = 5


def check_claim(config: RunConfig, data: BuiltData, stage: Stage, on_progress: OnProgress) -> dict[str, Any]:
    """Runs what is missing and returns the claim document.

    Args:
        config: the run; its `claim` says what is compared.
        data: versions of the pairs and of all tasks.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Raises:
        DataError: a test block that pretraining sees, a class that train lacks, or a fraction without a patch.
    """
    claim = claim_of(config)
    pairs = _version(str(data.pairs))
    tasks = {name: _version(str(path)) for name, path in data.tasks.items()}
    for name, version in tasks.items():
        _check_classes(name, version)
        with stage(f"audit ({name})"):
            _check_overlaps(pairs, version, config.pairs.split.buffer_m)
    planner = Planner(config, pairs, tasks)

    def run(name: str, jobs: Sequence[Pretraining | Trial]) -> None:
        with stage(name):
            processes.run_all(jobs, trainings.do, claim.num_processes, on_progress)

    trials = {(arm, s): planner.trial(arm, claim.primary, s, seed=0) for arm in _tuned(claim) for s in claim.settings}
    run(
        "encoders to choose among",
        unique([e for arm, s in trials for e in _encoders(planner, arm, claim.primary, s, 0)]),
    )
    run("settings", list(trials.values()))
    tried = {key: _mean_iou(_scores(trial, "eval")) for key, trial in trials.items()}
    chosen = _choose(claim, tried)
    cells = [cell for task in config.tasks for cell in claim.cells(task.name)]
    wanted = [(arm, cell, seed) for seed in range(claim.num_seeds) for cell in cells for arm in claim.arms]
    encoders = unique([e for arm, cell, seed in wanted for e in _encoders(planner, arm, cell, chosen[arm], seed)])
    run("encoders", encoders)
    found = {(arm, cell, seed): planner.trial(arm, cell, chosen[arm], seed) for arm, cell, seed in wanted}
    permuted = {arm: planner.trial(arm, claim.primary, chosen[arm], seed=0, is_permuted=True) for arm in claim.arms}
    run("trials", [*found.values(), *permuted.values()])
    document = {
        "name": config.name,
        "config_sha256": settings.sha256([config.pretrain, claim]),
        "config": settings.to_dict(claim),
        "data": {"pairs": pairs.manifest.sha256} | {name: version.manifest.sha256 for name, version in tasks.items()},
        "confidence": claim.confidence,
        "num_seeds": claim.num_seeds,
        "cells": [_compare(claim, cell, found) for cell in cells],
        "settings": list(_setting_lines(tried, chosen)),
        "controls": [
            *_shuffled_lines(config, claim, planner, found, chosen),
            *(_permuted_line(claim, arm, trial) for arm, trial in permuted.items()),
        ],
        "seconds": _seconds(planner, found, chosen),
    }
    (primary,) = [cell for cell in document["cells"] if cell["name"] == claim.primary.name]  # type: ignore[attr-defined]
    document["primary"] = primary
    _write(config, document)
    return document


def claim_of(config: RunConfig) -> ClaimConfig:
    """The run's `claim`.

    Raises:
        SettingsError: it has none.
    """
    if config.claim is None:
        raise settings.SettingsError(
            "claim: needed by claim-check, got none: add `claim: {primary: {task: <name>, ...}}`"
        )
    return config.claim


def _version(path: str) -> Version:
    return Version(path=path, manifest=manifest.read(path))


def _check_classes(task: str, version: Version) -> None:
    """A class that is judged but cannot be learned would count as a failure of every arm."""
    counts = version.manifest.num_pixels_per_class
    names = get_schema(version.manifest.label_schema or "").class_names
    for number, name in enumerate(names):
        key = str(number)
        if not counts["train"].get(key) and counts["test"].get(key):
            raise DataError(
                f"{version.path}: task {task!r}: class {name!r} has {counts['test'][key]} pixels in test and none in train",
                "class_absent",
            )


def _check_overlaps(pairs: Version, labels: Version, buffer_m: float) -> None:
    found = audit.compare({pairs.path: pairs.manifest}, {labels.path: labels.manifest}, buffer_m)
    if found.num_overlaps:
        named = "; ".join(
            f"{item.pair_patch_id} on {item.label_patch_id} of {item.label_split}"
            for item in found.overlaps[:NUM_NAMED_OVERLAPS]
        )
        raise DataError(f"{labels.path}: {found.verdict}: {named}", "overlap")


def _tuned(claim: ClaimConfig) -> list[Arm]:
    return [arm for arm in claim.arms if arm in TUNED]


def _encoders(planner: Planner, arm: Arm, cell: Cell, setting: Setting, seed: int) -> list[Pretraining]:
    return list(planner.pretrainings(arm, cell, setting, seed).values())


def _choose(claim: ClaimConfig, tried: Mapping[tuple[Arm, Setting], float]) -> dict[Arm, Setting]:
    """The best setting of each arm; the first of equals. The control takes that of what it controls."""
    best = {arm: max(claim.settings, key=lambda s: tried[arm, s]) for arm in _tuned(claim)}
    rest: dict[Arm, Setting] = {arm: claim.settings[0] for arm in claim.arms if arm not in best}
    return best | rest | ({"shuffled": best["multimodal"]} if "shuffled" in claim.arms else {})


def _scores(trial: Trial, split: str) -> PatchScores:
    return read_scores(trainings.scores_path(trial.folder, split))


def _mean_iou(scores: PatchScores) -> float:
    counts = scores.confusion
    return float(comparison.mean_iou(counts.sum(axis=0), counts.sum(axis=(0, 2)) > 0))


def _compare(claim: ClaimConfig, cell: Cell, found: Mapping[tuple[Arm, Cell, int], Trial]) -> dict[str, Any]:
    """A cell's entry in the document."""
    counts = {arm: _counts(claim, cell, arm, found) for arm in claim.arms}
    block = _scores(found["multimodal", cell, 0], "test").block
    over = {
        arm: _difference(claim, counts["multimodal"], of_arm, block)
        for arm, of_arm in counts.items()
        if arm != "multimodal"
    }
    by_seed = {
        arm: comparison.mean_iou(of_arm.sum(axis=1), of_arm.sum(axis=(0, 1, 3)) > 0) for arm, of_arm in counts.items()
    }
    return {
        **settings.to_dict(cell),
        "name": cell.name,
        "num_patches": found["multimodal", cell, 0].num_patches,
        "arms": {
            arm: {"mean_iou": float(iou.mean()), "mean_iou_by_seed": iou.tolist()} for arm, iou in by_seed.items()
        },
        "difference": _as_dict(over["simclr"]),
        "verdict": over["simclr"].verdict,
        "over": {arm: _as_dict(difference) for arm, difference in over.items()},
    }


def _counts(
    claim: ClaimConfig, cell: Cell, arm: Arm, found: Mapping[tuple[Arm, Cell, int], Trial]
) -> comparison.IntArray:
    """[S, M, K, K] of the test patches."""
    return np.stack([_scores(found[arm, cell, seed], "test").confusion for seed in range(claim.num_seeds)])


def _difference(
    claim: ClaimConfig, ours: comparison.IntArray, theirs: comparison.IntArray, block: comparison.AnyArray
) -> comparison.Difference:
    return comparison.compare(ours, theirs, block, confidence=claim.confidence, num_resamples=claim.num_resamples)


def _as_dict(difference: comparison.Difference) -> dict[str, float]:
    return {"value": difference.value, "low": difference.low, "high": difference.high}


def _setting_lines(tried: Mapping[tuple[Arm, Setting], float], chosen: Mapping[Arm, Setting]) -> Sequence[str]:
    return [
        f"{arm}: temperature {s.temperature:g}, strength {s.strength:g}: {100 * value:.1f}"
        + (" (chosen)" if chosen[arm] == s else "")
        for (arm, s), value in tried.items()
    ]


def _shuffled_lines(
    config: RunConfig,
    claim: ClaimConfig,
    planner: Planner,
    found: Mapping[tuple[Arm, Cell, int], Trial],
    chosen: Mapping[Arm, Setting],
) -> Sequence[str]:
    """What was learned from pairs broken on purpose: nothing, if all is well."""
    if "shuffled" not in claim.arms:
        return ["none: shuffled pairs were left out"]
    losses = []
    for seed in range(claim.num_seeds):
        for job in _encoders(planner, "shuffled", claim.primary, chosen["shuffled"], seed):
            losses.append(trainings.result_of(job.folder)["metrics"]["train_loss"])
    chance = math.log(config.pretrain.global_batch_size)
    lines = [f"shuffled pairs: loss {np.mean(losses):.3f}; that of guessing is {chance:.3f}"]
    if "random" in claim.arms:
        counts = [_counts(claim, claim.primary, arm, found) for arm in ("shuffled", "random")]  # type: ignore[arg-type]
        block = _scores(found["random", claim.primary, 0], "test").block
        difference = _difference(claim, counts[0], counts[1], block)
        outcome = "better than" if difference.low > 0 else "not better than"
        lines.append(
            f"shuffled pairs are {outcome} an untrained encoder: {points(difference.value)} points "
            f"[{points(difference.low)}, {points(difference.high)}]"
        )
    return lines


def _permuted_line(claim: ClaimConfig, arm: Arm, trial: Trial) -> str:
    """What labels of other patches teach: no more than the share of the classes, if all is well."""
    scores = _scores(trial, "test")
    counts = scores.confusion[np.newaxis]
    constant = np.zeros_like(counts)
    constant[..., counts.sum(axis=(0, 1, 3)).argmax()] = counts.sum(axis=-1)
    difference = _difference(claim, counts, constant, scores.block)
    outcome = "more than" if difference.low > 0 else "no more than"
    return (
        f"labels of other patches teach {arm} {outcome} always to say the most frequent class: mean IoU "
        f"{100 * difference.ours:.1f}, that of the constant answer {100 * difference.theirs:.1f}"
    )


def _seconds(
    planner: Planner, found: Mapping[tuple[Arm, Cell, int], Trial], chosen: Mapping[Arm, Setting]
) -> dict[str, float]:
    """What each arm's encoders and trials took, in the processes that did them; settings that were not chosen are not in it."""
    folders: dict[Arm, set[str]] = {}
    for (arm, cell, seed), trial in found.items():
        encoders = _encoders(planner, arm, cell, chosen[arm], seed)
        folders.setdefault(arm, set()).update([trial.folder, *(job.folder for job in encoders)])
    return {arm: sum(trainings.result_of(f)["seconds"] for f in sorted(of)) for arm, of in folders.items()}


def _write(config: RunConfig, document: Mapping[str, Any]) -> None:
    folder = locate(config.claim_dir)
    draw_curves(document, folder)
    with staged(folder / PAGE_FILE) as file:
        file.write_text(render_page(document, (folder / "curves.svg").read_text()))
    # Last: whoever finds it finds the rest, too.
    with staged(folder / CLAIM_FILE) as file:
        file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
