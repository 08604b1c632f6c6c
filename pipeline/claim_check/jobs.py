"""The jobs of a claim check: all trainings, and the folder of each result.

RunConfig, data versions and chosen settings -> jobs.

The name of a folder ends in a hash of everything that decides the result: config, data
and code. So a check finds the jobs that are done, also when it has more seeds or other
fractions, and a changed job never reads an old result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

from beam_jobs.contracts import layout, settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.fingerprint import source_fingerprint
from models.config import PretrainConfig
from models.segment_config import Regime, SegmentConfig
from pipeline.claim_check import arms, published_arms
from pipeline.claim_check.config import Arm, Cell, ClaimConfig, Draw, Setting, is_published
from pipeline.claim_check.label_subsets import num_labelled
from pipeline.claim_check.published_arms import PublishedEncoders
from pipeline.config import RunConfig
from pipeline.training_jobs import RESULT, SOURCE, Pretraining, Version, scores_path

SOURCES = ("models", "beam_jobs/contracts", "pipeline/claim_check", SOURCE)
SCORED: tuple[layout.Split, ...] = ("eval", "test")
"""Splits of scores: settings and thresholds come from the first."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model of a cell to train on a subset of the labels, and to score.

    Attributes:
        arm: where its encoders come from.
        seed: seed of training and of the draw of the labels.
        cell: the question that it belongs to.
        config: its training, encoders included.
        num_patches: number of labelled patches.
        version: version of the labels.
        folder: folder of the result.
        labels: shard of its labelled patches. All arms of a seed use the same one.
        scored: splits that it is scored on. Eval is left out where nothing is chosen on
            it, which saves a sixth of a trial.
        draw: what the labelled patches are drawn by.
        is_permuted: whether the labels belong to other patches, as a control.
    """

    arm: Arm
    seed: int
    cell: Cell
    config: SegmentConfig
    num_patches: int
    version: Version
    folder: str
    labels: str
    scored: tuple[layout.Split, ...] = SCORED
    draw: Draw = "patch"
    is_permuted: bool = False

    @property
    def results(self) -> list[str]:
        """Files that exist when the job is done."""
        return [
            *(scores_path(self.folder, split) for split in self.scored),
            f"{self.folder}/{RESULT}",
        ]

    @property
    def name(self) -> str:
        """The name of the job in messages."""
        labels = ", labels of other patches" if self.is_permuted else ""
        return f"trial {self.arm} in {self.cell.name}, seed {self.seed}{labels}"

    @property
    def rate_setting(self) -> str:
        """Setting of the learning rate."""
        if self.config.regime == "linear":
            return "claim.linear_learning_rate"
        return f"segment.optimizer.learning_rate of {self.cell.task}"


Job = TypeVar("Job", Pretraining, Trial)


class Planner:
    """Describes jobs and names their folders."""

    def __init__(
        self, config: RunConfig, claim: ClaimConfig, pairs: Version, tasks: Mapping[str, Version]
    ) -> None:
        """Prepare to plan the jobs of one check.

        Args:
            config: the run, with its models.
            claim: what is compared.
            pairs: version of the pairs.
            tasks: task -> version of its labels.
        """
        self._config, self._claim = config, claim
        self._pairs, self._tasks = pairs, tasks
        self._code = source_fingerprint(SOURCES)
        self._encoders: dict[Arm, PublishedEncoders] = {}

    def pretrainings(
        self, arm: Arm, cell: Cell, setting: Setting, seed: int
    ) -> dict[Sensor, Pretraining]:
        """Return the encoder of each sensor of `cell`."""
        configs = arms.pretrainings(arm, cell.sensors, self._config.own_pretrain, setting, seed)
        return {sensor: self._pretraining(config) for sensor, config in configs.items()}

    def trial(
        self, arm: Arm, cell: Cell, setting: Setting, seed: int, is_permuted: bool = False
    ) -> Trial:
        """Return the trial of `cell` that starts from the encoders of `arm`.

        Raises:
            DataError: the cell's fraction is less than one patch.
        """
        version = self._tasks[cell.task]
        num_patches = num_labelled(cell.fraction, version.manifest.num_examples["train"], cell.task)
        encoders = self.pretrainings(arm, cell, setting, seed)
        published = self._published(arm)
        config = self._segment_config(arm, cell, seed, num_patches)
        paths = {s: job.encoder_dir for s, job in encoders.items()}
        if published:
            config = dataclasses.replace(config, encoder=published.encoder)
            paths = {s: published.paths[s] for s in cell.sensors}
        # The names of the encoders' folders hold the hashes of their configs and of the
        # pairs. The paths are left out, because they change when the run is moved.
        decides = [
            config,
            num_patches,
            version.manifest.sha256,
            self._code,
            [PurePath(job.folder).name for job in encoders.values()],
            published.sha256 if published else None,
            self._claim.draw,
        ]
        digest = settings.sha256(decides)[:16]
        # The name of published weights is a path; the hash tells them apart.
        name = "weights" if published else arm
        name = f"{name}-permuted" if is_permuted else name
        return Trial(
            arm=arm,
            seed=seed,
            cell=cell,
            config=dataclasses.replace(config, encoder_paths=paths),
            num_patches=num_patches,
            version=version,
            folder=f"{self._config.claim_dir}/trials/{cell.name}/{name}-seed{seed}-{digest}",
            labels=self._labels(cell, num_patches, seed, is_permuted),
            scored=self._scored(arm, cell, seed, is_permuted),
            draw=self._claim.draw,
            is_permuted=is_permuted,
        )

    def _scored(
        self, arm: Arm, cell: Cell, seed: int, is_permuted: bool
    ) -> tuple[layout.Split, ...]:
        """Return the splits that a trial is scored on."""
        chooses_setting = (
            arm in arms.TUNED and cell == self._claim.primary and seed == 0 and not is_permuted
        )
        schema = self._tasks[cell.task].manifest.schema
        has_threshold = schema is not None and schema.num_classes == 2
        return SCORED if chooses_setting or has_threshold else ("test",)

    def _published(self, arm: Arm) -> PublishedEncoders | None:
        """Return the encoders of an arm that trains none, each read once."""
        if not is_published(arm):
            return None
        if arm not in self._encoders:
            self._encoders[arm] = published_arms.read(arm)
        return self._encoders[arm]

    def _labels(self, cell: Cell, num_patches: int, seed: int, is_permuted: bool) -> str:
        """Return the path of a subset of the labels, named by what it is drawn from."""
        decides = [self._tasks[cell.task].manifest.sha256, self._code]
        drawn = [] if self._claim.draw == "patch" else [f"by-{self._claim.draw}"]
        parts = [f"seed{seed}", str(num_patches), *drawn, *(["permuted"] if is_permuted else [])]
        name = "-".join([*parts, settings.sha256(decides)[:16]])
        return f"{self._config.claim_dir}/labels/{cell.task}/{name}.tfrecord.gz"

    def _pretraining(self, config: PretrainConfig) -> Pretraining:
        decides = [config, self._pairs.manifest.sha256, self._code]
        name = f"{config.objective}-seed{config.seed}-{settings.sha256(decides)[:16]}"
        return Pretraining(
            config=config,
            version=self._pairs,
            folder=f"{self._config.claim_dir}/encoders/{name}",
        )

    def _segment_config(self, arm: Arm, cell: Cell, seed: int, num_patches: int) -> SegmentConfig:
        (task,) = [task for task in self._config.tasks if task.name == cell.task]
        # All trials cost the same. A step that is chosen on all of eval would also use
        # more labels than the few that the trial is given.
        base = task.segment.keeping_last()
        regime: Regime = "scratch" if arm == "scratch" else cell.regime
        changes: dict[str, Any] = {}
        if regime == "linear":
            rate = self._claim.linear_learning_rate
            changes["optimizer"] = dataclasses.replace(base.optimizer, learning_rate=rate)
        if regime != "finetune":
            # These settings are for training a pretrained encoder.
            changes |= {"layer_decay": 1.0, "unfreeze_after": 0.0}
        if len(cell.sensors) == 1:
            changes["modality_dropout"] = 0.0
        return dataclasses.replace(
            base,
            sensors=cell.sensors,
            encoder=self._config.own_pretrain.encoder,
            encoder_paths={},
            regime=regime,
            head="linear" if cell.regime == "linear" else base.head,
            global_batch_size=min(base.global_batch_size, num_patches),
            seed=seed,
            **changes,
        )


def unique(jobs: Iterable[Job]) -> list[Job]:
    """Return each job once, in order.

    Arms and sensors share encoders, and settings without an effect share all jobs.
    """
    return list({job.folder: job for job in jobs}.values())
