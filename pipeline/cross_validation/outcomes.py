"""Pooled scores of the folds: what the document says of a task.

Folds and their trainings -> PatchScores of all test patches, and plain values. A pooled
score is the score of all patches together, each counted by the model that did not see
its block. It is not the mean of the folds' scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.reasons import PatchReason
from models.intervals import MIN_UNITS
from models.scores.patch_scores import PatchScores, concatenate
from models.scores.score_document import make_document
from models.scores.score_file import read_scores
from models.scores.units import Units, units_of
from pipeline.config import TaskConfig
from pipeline.cross_validation.folds import Fold
from pipeline.cross_validation.trainings import FoldTraining, published_encoders
from pipeline.training_jobs import result_of, scores_path

_BETWEEN_BLOCKS: tuple[PatchReason, ...] = ("straddles_splits", "in_buffer")
"""Why a fold does not use a sound labelled patch."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The trainings of one task, all done.

    Attributes:
        task: the task.
        folds: all folds.
        jobs: the task's training in each fold.
    """

    task: TaskConfig
    folds: Sequence[Fold]
    jobs: Sequence[FoldTraining]

    def test_scores(self) -> list[PatchScores]:
        """Return the scores of each fold's test split."""
        return [read_scores(scores_path(job.folder, "test")) for job in self.jobs]


def describe(outcome: Outcome) -> tuple[PatchScores, dict[str, Any]]:
    """Return the pooled scores of a task, and its entry in the document."""
    by_fold = outcome.test_scores()
    pooled = concatenate(by_fold)
    units = units_of(pooled)
    entry = {
        "class_names": list(pooled.class_names),
        "encoder": {
            "published": published_encoders(outcome.task),
            "saw": encoder_text(outcome.task),
        },
        "folds": [
            _describe_fold(fold, job, scores, units)
            for fold, job, scores in zip(outcome.folds, outcome.jobs, by_fold, strict=True)
        ],
        "pooled": {
            **make_document(pooled, "test"),
            "unit": units.name,
            "num_units": units.count,
            "num_labelled_patches": _num_labelled(outcome.jobs[0].version.manifest),
        },
        "notes": list(_notes(outcome, by_fold, units)),
    }
    return pooled, entry


def encoder_text(task: TaskConfig) -> str:
    """Return what the encoders saw, in one line."""
    parts = []
    if task.segment.needs_pretraining:
        parts.append(
            "Each fold pretrained an encoder of its own, on pairs of its train blocks only."
        )
    for path in dict.fromkeys(published_encoders(task).values()):
        parts.append(
            f"All folds start from {path}, which may have seen images of the test blocks "
            "(not their labels), so the scores may be too good for new ground."
        )
    return " ".join(parts) or "Encoders are new in each fold and saw its train patches only."


def _describe_fold(
    fold: Fold, job: FoldTraining, scores: PatchScores, units: Units
) -> dict[str, Any]:
    manifest = job.version.manifest
    found = make_document(scores, "test")
    # The slices of one fold are too small to say anything.
    del found["slices"], found["class_names"], found["num_patches"], found["split"]
    return {
        "fold": fold.number,
        "folder": job.folder,
        "labels": job.version.path,
        "labels_sha256": manifest.sha256,
        "num_patches": dict(manifest.num_examples),
        "num_units": units_of(scores, units.name).count,
        "seconds": result_of(job.folder)["seconds"],
        **found,
    }


def _num_labelled(manifest: Manifest) -> int:
    """Return the number of sound labelled patches, those between blocks included."""
    between = sum(manifest.num_rejected.get(reason, 0) for reason in _BETWEEN_BLOCKS)
    return sum(manifest.num_examples.values()) + between


def _notes(outcome: Outcome, by_fold: Sequence[PatchScores], units: Units) -> Iterator[str]:
    """Yield what a reader must know before quoting the score."""
    num_folds = len(outcome.folds)
    yield (
        f"Each model was trained on {num_folds - 2} of {num_folds} folds. One that is trained on "
        "all labels should be slightly better. The interval is over the tested ground; it does "
        "not hold the chance in the trainings."
    )
    num_tested = sum(len(scores) for scores in by_fold)
    num_labelled = _num_labelled(outcome.jobs[0].version.manifest)
    if num_tested < num_labelled:
        yield (
            f"{num_tested} of {num_labelled} labelled patches are tested. The others reach into "
            "blocks of several folds; larger blocks (split.block_size_km) test more of them."
        )
    if units.count < MIN_UNITS:
        yield (
            f"{units.count} {units.name}s are too few for an interval, which needs {MIN_UNITS}: "
            "label more, or use a smaller split.block_size_km."
        )
    in_folds: dict[str, set[int]] = {}
    for number, scores in enumerate(by_fold):
        for event in np.unique(scores.event[scores.event != ""]):
            in_folds.setdefault(str(event), set()).add(number)
    shared = [event for event, numbers in in_folds.items() if len(numbers) > 1]
    if shared:
        yield (
            f"{len(shared)} of {len(in_folds)} events have blocks in several folds, so a model was "
            "trained on the event that it is tested on. The scores hold for new ground of these "
            "events; for new events, hold some out (split.holdouts)."
        )
    confusion = sum(scores.confusion.sum(axis=0) for scores in by_fold)
    unmeasured = [
        name
        for name, row in zip(by_fold[0].class_names, np.asarray(confusion), strict=True)
        if not row.any()
    ]
    if unmeasured:
        yield f"No fold has a test pixel of {', '.join(unmeasured)}: nothing was measured there."
