"""A claim check from data to page: encoders of all arms, their trials, the comparison.

RunConfig with a `claim` -> `claim.json`, `claim.html` and curves in the run's `claim`
folder. Jobs that are done are not done again, so a check that was killed continues.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import locate, staged
from pipeline.claim_check import data_checks, processes, trainings
from pipeline.claim_check.arms import TUNED
from pipeline.claim_check.config import Arm, ClaimConfig, Setting
from pipeline.claim_check.controls import check_controls
from pipeline.claim_check.curves import draw_curves
from pipeline.claim_check.jobs import Planner, Trial, unique
from pipeline.claim_check.outcomes import Outcomes, TrialKey, eval_score
from pipeline.claim_check.page import render_page
from pipeline.config import RunConfig
from pipeline.data_build import BuiltData, OnProgress, Stage
from pipeline.training_jobs import Pretraining, Version, check_overlaps, is_done, read_version

Run = Callable[[str, Sequence[Pretraining | Trial]], None]
"""A function that does jobs as one named stage."""

CLAIM_FILE = "claim.json"
PAGE_FILE = "claim.html"


def check_claim(
    config: RunConfig, data: BuiltData, stage: Stage, on_progress: OnProgress
) -> dict[str, Any]:
    """Do the jobs that are not done, write the page, and return the claim document.

    Args:
        config: the run; its `claim` says what is compared.
        data: versions of the pairs and of all tasks.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Raises:
        DataError: pretraining sees ground of the eval or test split, a class is missing
            in train, the test patches are of too few units, or a fraction gives no
            patch.
        RefusedError: a training ended in NaN.
    """
    claim = claim_of(config)
    if data.pairs is None:
        raise ValueError("data.pairs must be built for a claim check, got none")
    pairs = read_version(data.pairs)
    tasks = {name: read_version(path) for name, path in data.tasks.items()}
    for name, version in tasks.items():
        data_checks.check_classes(name, version)
        data_checks.check_fractions(claim, name, version)
        data_checks.check_published(claim, name, version)
        with stage(f"audit ({name})"):
            check_overlaps(
                pairs,
                version,
                config.pairs.split.buffer_m,
                f"{config.claim_dir}/overlaps-{name}.json",
            )
            data_checks.check_units(claim, name, version)
    planner = Planner(config, claim, pairs, tasks)
    with processes.workers(claim.num_processes) as pool:

        def run(name: str, jobs: Sequence[Pretraining | Trial]) -> None:
            # A process that finds only jobs that are done would import TensorFlow for
            # nothing.
            left = [job for job in jobs if not is_done(job)]
            with stage(name):
                processes.run_all(pool, left, trainings.do, on_progress)

        tried = _try_settings(claim, planner, run)
        chosen = _choose(claim, tried)
        outcomes, permuted = _try_arms(config, claim, planner, chosen, run)
    versions = {"pairs": pairs, **tasks}
    document = _document(config, versions, outcomes, permuted) | {
        "settings": list(_setting_lines(tried, chosen)),
        "controls": check_controls(outcomes, permuted, config.own_pretrain.global_batch_size),
    }
    _write(config, document)
    return document


def _try_settings(
    claim: ClaimConfig, planner: Planner, run: Run
) -> dict[tuple[Arm, Setting], float]:
    """Return the score on eval of each setting, in the primary cell's first seed."""
    wanted = list(itertools.product(_tuned(claim), claim.settings))
    trials = {(arm, s): planner.trial(arm, claim.primary, s, seed=0) for arm, s in wanted}
    encoders = [planner.pretrainings(arm, claim.primary, s, seed=0).values() for arm, s in wanted]
    run("encoders to choose among", unique(itertools.chain(*encoders)))
    run("settings", unique(trials.values()))
    return {key: eval_score(trial, claim.score) for key, trial in trials.items()}


def _try_arms(
    config: RunConfig, claim: ClaimConfig, planner: Planner, chosen: Mapping[Arm, Setting], run: Run
) -> tuple[Outcomes, dict[Arm, list[Trial]]]:
    """Try every arm in every cell, and in the primary cell with permuted labels too."""
    cells = [cell for task in config.tasks for cell in claim.cells(task.name)]
    seeds = range(claim.num_seeds)
    wanted = [
        TrialKey(arm=arm, cell=cell, seed=seed)
        for seed in seeds
        for cell in cells
        for arm in claim.arms
    ]
    outcomes = Outcomes(
        claim=claim,
        planner=planner,
        chosen=chosen,
        trials={key: planner.trial(key.arm, key.cell, chosen[key.arm], key.seed) for key in wanted},
    )
    run("encoders", unique(job for key in wanted for job in outcomes.encoders(key)))
    permuted = {
        arm: [
            planner.trial(arm, claim.primary, chosen[arm], seed, is_permuted=True) for seed in seeds
        ]
        for arm in claim.arms
    }
    run("trials", [*outcomes.trials.values(), *itertools.chain(*permuted.values())])
    return outcomes, permuted


def claim_of(config: RunConfig) -> ClaimConfig:
    """Return the run's `claim`.

    Raises:
        SettingsError: the run has none.
    """
    if config.claim is None:
        raise settings.SettingsError(
            "claim: needed by claim-check, got none: add `claim: {primary: {task: <name>, ...}}`"
        )
    return config.claim


def _tuned(claim: ClaimConfig) -> list[Arm]:
    return [arm for arm in claim.arms if arm in TUNED]


def _choose(claim: ClaimConfig, tried: Mapping[tuple[Arm, Setting], float]) -> dict[Arm, Setting]:
    """Return the best setting of each arm, the first of equals.

    Arms that do not choose have the first setting; `shuffled` has that of `multimodal`.
    """
    best = {arm: max(claim.settings, key=lambda s: tried[arm, s]) for arm in _tuned(claim)}
    rest: dict[Arm, Setting] = {arm: claim.settings[0] for arm in claim.arms if arm not in best}
    return best | rest | ({"shuffled": best["multimodal"]} if "shuffled" in claim.arms else {})


def _document(
    config: RunConfig,
    versions: Mapping[str, Version],
    outcomes: Outcomes,
    permuted: Mapping[Arm, Sequence[Trial]],
) -> dict[str, Any]:
    claim = outcomes.claim
    cells = {
        cell: outcomes.describe(cell, permuted if cell == claim.primary else None)
        for task in config.tasks
        for cell in claim.cells(task.name)
    }
    return {
        "name": config.name,
        "config_sha256": settings.sha256([config.pretrain, claim]),
        "config": settings.to_dict(claim),
        "data": {name: version.manifest.sha256 for name, version in versions.items()},
        "confidence": claim.confidence,
        "score": outcomes.measure.title,
        "num_seeds": claim.num_seeds,
        "unscored_classes": {
            task.name: data_checks.absent_classes(versions[task.name], "test")
            for task in config.tasks
        },
        "cells": list(cells.values()),
        "primary": cells[claim.primary],
        "seconds": outcomes.seconds(),
    }


def _setting_lines(
    tried: Mapping[tuple[Arm, Setting], float], chosen: Mapping[Arm, Setting]
) -> Sequence[str]:
    return [
        f"{arm}: temperature {s.temperature:g}, strength {s.strength:g}: {100 * value:.1f}"
        + (" (chosen)" if chosen[arm] == s else "")
        for (arm, s), value in tried.items()
    ]


def _write(config: RunConfig, document: Mapping[str, Any]) -> None:
    folder = locate(config.claim_dir)
    draw_curves(document, folder)
    with staged(folder / PAGE_FILE) as file:
        file.write_text(render_page(document, (folder / "curves.svg").read_text()))
    # The document is written last, so when it exists, the other files exist too.
    with staged(folder / CLAIM_FILE) as file:
        file.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
