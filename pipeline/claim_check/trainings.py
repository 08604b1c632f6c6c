"""The work of a claim check's jobs: train an encoder, or train and score a model.

Job -> its folder with `result.json`, written last.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from models import segment
from models.scores.score_file import write_scores
from models.scores.scoring import score_splits
from models.training.scaffold import Folders, Shards
from pipeline import training_jobs
from pipeline.claim_check.jobs import Trial
from pipeline.claim_check.label_subsets import write_subset
from pipeline.training_jobs import Pretraining, scores_path

SCORING_BATCH_SIZE = 64


def do(job: Pretraining | Trial) -> None:
    """Do a job, unless it is done; see `training_jobs.do`."""
    if isinstance(job, Pretraining):
        training_jobs.do(job, training_jobs.train_encoder)
    else:
        training_jobs.do(job, _try)


def _try(job: Trial) -> dict[str, Any]:
    write_subset(
        Path(job.version.path),
        job.num_patches,
        job.seed,
        Path(job.labels),
        draw=job.draw,
        is_permuted=job.is_permuted,
    )
    manifest = job.version.manifest
    manifest = dataclasses.replace(
        manifest, num_examples={**manifest.num_examples, "train": job.num_patches}
    )
    trained = segment.train_segmenter(
        job.config,
        Shards(manifest=manifest, train=(job.labels,), eval=job.version.files("eval")),
        Folders(output=job.folder, logs=f"{job.folder}/logs"),
    )
    class_names = job.config.schema.class_names
    found = score_splits(
        trained.model,
        [job.version.files(split) for split in job.scored],
        class_names,
        batch_size=SCORING_BATCH_SIZE,
    )
    for split, scores in zip(job.scored, found, strict=True):
        write_scores(scores_path(job.folder, split), scores)
    return {"train_loss": trained.train_loss}
