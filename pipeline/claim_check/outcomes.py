"""Results of the trials of a claim check: counts, differences, cells and cost.

Trials that are done -> the numbers of the claim document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from beam_jobs.contracts import settings
from models.scores.patch_scores import PatchScores
from models.scores.score_file import read_scores
from pipeline.claim_check import comparison, trainings
from pipeline.claim_check.config import Arm, Cell, ClaimConfig, Setting
from pipeline.claim_check.jobs import Planner, Pretraining, Trial, scores_path


class TrialKey(NamedTuple):
    """What identifies a trial of the comparison."""

    arm: Arm
    cell: Cell
    seed: int


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Trials that are done, by arm, cell and seed.

    Attributes:
        claim: what is compared.
        planner: names the encoders of a trial.
        chosen: setting of each arm.
        trials: the trials.
    """

    claim: ClaimConfig
    planner: Planner
    chosen: Mapping[Arm, Setting]
    trials: Mapping[TrialKey, Trial]

    def encoders(self, key: TrialKey) -> list[Pretraining]:
        """Return the encoders that the trial's model started from."""
        setting = self.chosen[key.arm]
        return list(self.planner.pretrainings(key.arm, key.cell, setting, key.seed).values())

    def counts(self, arm: Arm, cell: Cell) -> comparison.Counts:
        """Return confusion matrices [S, M, K, K] of the test patches, by seed."""
        keys = [TrialKey(arm, cell, seed) for seed in range(self.claim.num_seeds)]
        return np.stack([test_scores(self.trials[key]).confusion for key in keys])

    def difference(
        self, ours: comparison.Counts, theirs: comparison.Counts, cell: Cell
    ) -> comparison.Difference:
        """Return the difference of two arms' counts on the test patches of `cell`."""
        block = test_scores(self.trials[TrialKey("multimodal", cell, 0)]).block
        return comparison.compare(
            ours,
            theirs,
            block,
            confidence=self.claim.confidence,
            num_resamples=self.claim.num_resamples,
        )

    def describe(self, cell: Cell) -> dict[str, Any]:
        """Return the cell's entry in the claim document."""
        counts = {arm: self.counts(arm, cell) for arm in self.claim.arms}
        over = {
            arm: self.difference(counts["multimodal"], of_arm, cell)
            for arm, of_arm in counts.items()
            if arm != "multimodal"
        }
        by_seed = {
            arm: comparison.mean_iou(of_arm.sum(axis=1), of_arm.sum(axis=(0, 1, 3)) > 0)
            for arm, of_arm in counts.items()
        }
        return {
            **settings.to_dict(cell),
            "name": cell.name,
            "num_patches": self.trials[TrialKey("multimodal", cell, 0)].num_patches,
            "arms": {
                arm: {"mean_iou": float(iou.mean()), "mean_iou_by_seed": iou.tolist()}
                for arm, iou in by_seed.items()
            },
            "difference": settings.to_dict(over["simclr"]),
            "verdict": over["simclr"].verdict,
            "over": {arm: settings.to_dict(difference) for arm, difference in over.items()},
        }

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each arm's encoders and trials, summed over processes.

        Settings that were tried and not chosen are left out.
        """
        folders: dict[Arm, set[str]] = {}
        for key, trial in self.trials.items():
            encoders = [job.folder for job in self.encoders(key)]
            folders.setdefault(key.arm, set()).update([trial.folder, *encoders])
        return {
            arm: sum(trainings.result_of(folder)["seconds"] for folder in sorted(of_arm))
            for arm, of_arm in folders.items()
        }


def test_scores(trial: Trial) -> PatchScores:
    """Return the scores of a trial on the test split, which no choice depends on."""
    return read_scores(scores_path(trial.folder, "test"))


def eval_mean_iou(trial: Trial) -> float:
    """Return mean IoU of a trial on the eval split, by which settings are chosen."""
    counts = read_scores(scores_path(trial.folder, "eval")).confusion
    return float(comparison.mean_iou(counts.sum(axis=0), counts.sum(axis=(0, 2)) > 0))
