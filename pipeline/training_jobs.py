"""Trainings as jobs: each is found again by the hash in the name of its folder.

Job -> its folder with `result.json`, which is written last. Whoever names a folder puts
a hash into its name of everything that decides the result: config, data and code. So a
command that was killed and started again does no job twice, and a changed job never
reads an old result.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import keras

from beam_jobs.contracts import layout, manifest
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.errors import DataError, RefusedError
from beam_jobs.judging import audit
from models import pretrain
from models.config import PretrainConfig
from models.scores.patch_scores import NonFiniteScoresError
from models.training.scaffold import Folders, Shards
from models.training.step_log import NonFiniteLossError, ProgressCallback

SOURCE = "pipeline/training_jobs.py"
"""This file, for the hash of the code that a job runs."""
RESULT = "result.json"
"""File that is written last; without it a job is not done."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version directory and its manifest."""

    path: str
    manifest: Manifest

    def files(self, split: layout.Split) -> tuple[str, ...]:
        """Return the shards of a split."""
        return tuple(str(path) for path in layout.shard_paths(self.path, split))

    def shards(self) -> Shards:
        """Return what a training reads."""
        return Shards(manifest=self.manifest, train=self.files("train"), eval=self.files("eval"))


class Job(Protocol):
    """A training with a folder of its own."""

    @property
    def folder(self) -> str:
        """Folder of the result."""

    @property
    def results(self) -> list[str]:
        """Files that exist when the job is done."""

    @property
    def name(self) -> str:
        """The name of the job in messages."""

    @property
    def rate_setting(self) -> str:
        """Setting of the learning rate."""


JobT = TypeVar("JobT", bound=Job)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """One encoder to train, or to leave untrained.

    Attributes:
        config: its pretraining.
        version: version of the pairs.
        folder: folder of the result.
    """

    config: PretrainConfig
    version: Version
    folder: str

    @property
    def encoder_dir(self) -> str:
        """SavedModel of the encoder, which segmenters start from."""
        return f"{self.folder}/model"

    @property
    def results(self) -> list[str]:
        """Files that exist when the job is done."""
        return [f"{self.folder}/{RESULT}"]

    @property
    def name(self) -> str:
        """The name of the job in messages."""
        return f"pretraining {self.config.objective}, seed {self.config.seed}"

    @property
    def rate_setting(self) -> str:
        """Setting of the learning rate."""
        return "pretrain.optimizer.learning_rate"


def read_version(path: str | os.PathLike[str]) -> Version:
    """Return a version with its manifest.

    Raises:
        DataError: the manifest is missing or damaged.
    """
    return Version(path=os.fspath(path), manifest=manifest.read(path))


def scores_path(folder: str, split: str) -> str:
    """Return the file of a job's scores on the patches of a split."""
    return f"{folder}/{split}.npz"


def is_done(job: Job) -> bool:
    """Return whether a job has its result."""
    return all(locate(path).exists() for path in job.results)


def do(job: JobT, work: Callable[[JobT], Mapping[str, Any]]) -> None:
    """Do a job, unless it is done.

    Args:
        job: what to do.
        work: does it, writes its files, and returns values for `result.json`.

    Raises:
        RefusedError: loss, weights or scores became NaN. The message names the job.
    """
    if is_done(job):
        return
    started = time.monotonic()
    # Keras keeps the models of earlier jobs of this process in memory.
    keras.backend.clear_session()
    try:
        found = {**work(job), "seconds": time.monotonic() - started}
    except (NonFiniteLossError, NonFiniteScoresError) as error:
        raise RefusedError(f"{job.name}: {error}: lower {job.rate_setting}") from error
    with staged(locate(job.folder) / RESULT) as file:
        file.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


def result_of(folder: str) -> dict[str, Any]:
    """Return the result of a job that is done."""
    found: dict[str, Any] = json.loads((locate(folder) / RESULT).read_text())
    return found


def train_encoder(job: Pretraining, on_step: ProgressCallback | None = None) -> dict[str, Any]:
    """Train the encoder of a job and return its metrics.

    Args:
        job: the pretraining.
        on_step: called after every step.
    """
    metrics = pretrain.run_pretraining(
        job.config,
        job.version.shards(),
        Folders(
            output=job.encoder_dir,
            logs=f"{job.folder}/logs",
            checkpoints=f"{job.folder}/checkpoints",
        ),
        on_step=on_step,
        is_served=False,
    )
    return {"metrics": metrics}


def check_overlaps(pairs: Version, labels: Version, buffer_m: float, report: str) -> None:
    """Refuse labels whose eval or test patches show ground of unlabeled train patches.

    Args:
        pairs: what encoders are trained on.
        labels: what segmenters are judged by.
        buffer_m: patches closer than this count as overlapping.
        report: JSON file that lists the overlaps; written if there are any.

    Raises:
        DataError: there are some.
    """
    found = audit.compare({pairs.path: pairs.manifest}, {labels.path: labels.manifest}, buffer_m)
    if found.num_overlaps:
        path = locate(report)
        with staged(path) as file:
            file.write_text(found.to_json())
        raise DataError(f"{labels.path}: {found.verdict}; all are in {path}", "overlap")
