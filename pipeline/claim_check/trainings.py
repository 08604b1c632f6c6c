"""The work of a claim check's jobs: train an encoder, or train and score a model.

Job -> its folder with `result.json`, written last.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import keras

from beam_jobs.contracts import layout
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.errors import RefusedError
from models import pretrain, segment
from models.scores.patch_scores import NonFiniteScoresError
from models.scores.score_file import write_scores
from models.scores.scoring import score_splits
from models.training.scaffold import Folders, Shards
from models.training.step_log import NonFiniteLossError
from pipeline.claim_check.jobs import RESULT, Pretraining, Trial, Version, scores_path
from pipeline.claim_check.label_subsets import write_subset

SCORING_BATCH_SIZE = 64


def do(job: Pretraining | Trial) -> None:
    """Do a job, unless it is done.

    Raises:
        RefusedError: loss, weights or scores became NaN. The message names the job.
    """
    if all(Path(path).exists() for path in job.results):
        return
    started = time.monotonic()
    # Keras keeps the models of earlier jobs of this process in memory.
    keras.backend.clear_session()
    try:
        found = _pretrain(job) if isinstance(job, Pretraining) else _try(job)
    except (NonFiniteLossError, NonFiniteScoresError) as error:
        raise RefusedError(f"{job.name}: {error}: lower {job.rate_setting}") from error
    with staged(locate(job.folder) / RESULT) as file:
        file.write_text(
            json.dumps(found | {"seconds": time.monotonic() - started}, indent=2, sort_keys=True)
            + "\n"
        )


def result_of(folder: str) -> dict[str, Any]:
    """Return the result of a job that is done."""
    found: dict[str, Any] = json.loads((Path(folder) / RESULT).read_text())
    return found


def _pretrain(job: Pretraining) -> dict[str, Any]:
    metrics = pretrain.run_pretraining(
        job.config,
        Shards(
            manifest=job.version.manifest,
            train=_files(job.version, "train"),
            eval=_files(job.version, "eval"),
        ),
        Folders(
            output=job.encoder_dir,
            logs=f"{job.folder}/logs",
            checkpoints=f"{job.folder}/checkpoints",
        ),
        is_served=False,
    )
    return {"metrics": metrics}


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
        Shards(manifest=manifest, train=(job.labels,), eval=_files(job.version, "eval")),
        Folders(output=job.folder, logs=f"{job.folder}/logs"),
    )
    class_names = job.config.schema.class_names
    found = score_splits(
        trained.model,
        [_files(job.version, split) for split in job.scored],
        class_names,
        batch_size=SCORING_BATCH_SIZE,
    )
    for split, scores in zip(job.scored, found, strict=True):
        write_scores(scores_path(job.folder, split), scores)
    return {"train_loss": trained.train_loss}


def _files(version: Version, split: str) -> tuple[str, ...]:
    return tuple(str(path) for path in layout.shard_paths(version.path, split))
