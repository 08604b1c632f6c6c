"""A cross-validation from catalogs to page: data of all folds, trainings, scores.

RunConfig with folds -> `cross_validation.json`, `cross_validation.html` and the pooled
scores of each task in the run's `folds` folder. Trainings that are done are not done
again, so a command that was killed continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.terminal.progress import Progress
from models.scores.patch_scores import PatchScores
from models.scores.score_file import write_scores
from models.training.checkpoints import remove_checkpoints
from pipeline import training_jobs
from pipeline.config import RunConfig, TaskConfig
from pipeline.cross_validation import trainings
from pipeline.cross_validation.folds import Fold, build_folds
from pipeline.cross_validation.outcomes import Outcome, describe
from pipeline.cross_validation.page import render_page
from pipeline.cross_validation.trainings import FoldTraining, Planner

DOCUMENT_FILE = "cross_validation.json"
PAGE_FILE = "cross_validation.html"


@dataclass(frozen=True, kw_only=True)
class Validated:
    """The result of a cross-validation.

    Attributes:
        document: content of `cross_validation.json`.
        pooled: task -> scores of all test patches of all folds.
    """

    document: dict[str, Any]
    pooled: dict[str, PatchScores]


def cross_validate(
    config: RunConfig,
    tasks: Sequence[TaskConfig],
    progress: Progress,
    *,
    verify_files: bool = False,
) -> Validated:
    """Train and score each task in each fold, pool the scores, and write the page.

    Args:
        config: the run, with folds.
        tasks: tasks of the run; see `choose_tasks`.
        progress: shows the stages.
        verify_files: see `build_data`.

    Raises:
        DataError: see `build_folds`.
        ValueError: shards or encoders do not fit the settings.
    """
    folds = build_folds(
        config,
        tasks,
        progress,
        with_pairs=any(task.segment.needs_pretraining for task in tasks),
        verify_files=verify_files,
    )
    planner = Planner()
    jobs: dict[str, list[FoldTraining]] = {task.name: [] for task in tasks}
    for fold in folds:
        if fold.pairs is not None:
            _pretrain(planner, fold, progress)
        for task in tasks:
            jobs[task.name].append(_train(planner, fold, task, progress))
    pooled, entries = {}, {}
    for task in tasks:
        outcome = Outcome(task=task, folds=folds, jobs=jobs[task.name])
        pooled[task.name], entries[task.name] = describe(outcome)
    document = {
        "name": config.name,
        "config_sha256": settings.sha256(config),
        "num_folds": len(folds),
        "block_size_km": config.pairs.split.block_size_km,
        "tasks": entries,
    }
    _write(config, document, pooled)
    return Validated(document=document, pooled=pooled)


def _pretrain(planner: Planner, fold: Fold, progress: Progress) -> None:
    job = planner.pretraining(fold)
    with progress.stage(f"{fold.name}: pretrain the encoder"):
        training_jobs.do(job, partial(training_jobs.train_encoder, on_step=progress.update))


def _train(planner: Planner, fold: Fold, task: TaskConfig, progress: Progress) -> FoldTraining:
    job = planner.training(fold, task)
    with progress.stage(f"{fold.name}: train {task.name}"):
        training_jobs.do(job, partial(trainings.train_segmenter, on_step=progress.update))
        # Only now: a process that is killed while it scores must not lose the training.
        remove_checkpoints(job.checkpoints)
    return job


def _write(
    config: RunConfig, document: Mapping[str, Any], pooled: Mapping[str, PatchScores]
) -> None:
    folder = locate(config.folds_dir)
    for name, scores in pooled.items():
        with staged(folder / f"{name}.npz") as file:
            write_scores(file, scores)
    with staged(folder / PAGE_FILE) as file:
        file.write_text(render_page(document))
    # The document is written last, so when it exists, the other files exist too.
    with staged(folder / DOCUMENT_FILE) as file:
        file.write_text(json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n")
