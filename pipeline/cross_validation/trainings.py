"""The trainings of a fold: an encoder if one is pretrained, and a segmenter per task.

Fold and task -> a job, whose folder is named by a hash of config, data and code. A job
-> scores of the fold's eval and test split.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any

from beam_jobs.contracts import layout, settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.fingerprint import source_fingerprint, tree_sha256
from models import segment
from models.scores.calibration import at_threshold
from models.scores.score_file import write_scores
from models.scores.scoring import score_splits, tune_threshold
from models.segment_config import SegmentConfig
from models.training import scaffold
from models.training.scaffold import Folders
from models.training.step_log import ProgressCallback
from pipeline.config import TaskConfig
from pipeline.cross_validation.folds import Fold
from pipeline.training_jobs import RESULT, SOURCE, Pretraining, Version, scores_path

SOURCES = ("models", "beam_jobs/contracts", "pipeline/cross_validation", SOURCE)
SCORED: tuple[layout.Split, ...] = ("eval", "test")
"""Splits that are scored: the threshold comes from the first."""


@dataclass(frozen=True, kw_only=True)
class FoldTraining:
    """The segmenter of one task in one fold.

    Attributes:
        config: its training, encoders included.
        version: the fold's labels.
        folder: folder of the result.
    """

    config: SegmentConfig
    version: Version
    folder: str

    @property
    def results(self) -> list[str]:
        """Files that exist when the job is done."""
        return [
            *(scores_path(self.folder, split) for split in SCORED),
            f"{self.folder}/{RESULT}",
        ]

    @property
    def name(self) -> str:
        """The name of the job in messages."""
        path = PurePath(self.folder)
        return f"{path.parent.name}, task {path.name.rpartition('-')[0]}"

    @property
    def rate_setting(self) -> str:
        """Setting of the learning rate."""
        return "segment.optimizer.learning_rate of the task"

    @property
    def checkpoints(self) -> str:
        """Folder of the checkpoints of an attempt that was killed."""
        return f"{self.folder}/checkpoints"


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Describes the jobs of the folds and names their folders."""

    _hashes: dict[str, str] = field(default_factory=dict)

    def pretraining(self, fold: Fold) -> Pretraining:
        """Return the pretraining of a fold, whose pairs are built."""
        if fold.pairs is None:
            raise ValueError(f"{fold.name}: must have pairs to pretrain on, got none")
        config = fold.config.own_pretrain
        digest = self._digest(config, fold.pairs.manifest.sha256)
        return Pretraining(
            config=config, version=fold.pairs, folder=f"{fold.folder}/encoder-{digest}"
        )

    def training(self, fold: Fold, task: TaskConfig) -> FoldTraining:
        """Return the training of a task in a fold."""
        config, version = task.segment, fold.labels[task.name]
        paths = published_encoders(task)
        # A path does not tell what lies there. It also changes when the run is moved.
        starts: dict[Sensor, str] = {s: self._tree_sha256(path) for s, path in paths.items()}
        if config.needs_pretraining:
            job = self.pretraining(fold)
            for sensor in config.sensors:
                if sensor not in paths:
                    paths[sensor], starts[sensor] = job.encoder_dir, PurePath(job.folder).name
        digest = self._digest(replace(config, encoder_paths={}), version.manifest.sha256, starts)
        return FoldTraining(
            config=replace(config, encoder_paths=paths),
            version=version,
            folder=f"{fold.folder}/{task.name}-{digest}",
        )

    def _digest(self, *decides: Any) -> str:
        return settings.sha256([*decides, self._code])[:16]

    def _tree_sha256(self, path: str) -> str:
        if path not in self._hashes:
            self._hashes[path] = tree_sha256(path)
        return self._hashes[path]

    @cached_property
    def _code(self) -> str:
        return source_fingerprint(SOURCES)


def published_encoders(task: TaskConfig) -> dict[Sensor, str]:
    """Return the path of each sensor's encoder that is the same in all folds."""
    return {} if task.segment.regime == "scratch" else dict(task.segment.encoder_paths)


def train_segmenter(job: FoldTraining, on_step: ProgressCallback | None = None) -> dict[str, Any]:
    """Train and score the segmenter of a fold; return values for its result.

    Its threshold comes from the fold's eval split. The test split has no influence.

    Args:
        job: the training.
        on_step: called after every step.
    """
    trained = scaffold.fit(
        segment.SegmentRecipe(job.config, job.version.shards()),
        Folders(output=job.folder, logs=f"{job.folder}/logs", checkpoints=job.checkpoints),
        on_step,
    )
    judged, tested = score_splits(
        trained.model,
        [job.version.files(split) for split in SCORED],
        job.config.schema.class_names,
        batch_size=job.config.global_batch_size,
    )
    if job.config.tune_threshold:
        judged = tune_threshold(trained.model, judged)
        if judged.threshold is not None:
            tested = at_threshold(tested, judged.threshold)
    for split, scores in zip(SCORED, (judged, tested), strict=True):
        write_scores(scores_path(job.folder, split), scores)
    return {"train_loss": trained.train_loss}
