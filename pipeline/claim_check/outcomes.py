"""What the trials of a claim check found: counts, differences, cells and cost.

Trials that are done -> the parts of the claim document that are numbers. Called by
`claim.py` and `controls.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_jobs.contracts import settings
from models.scores.patch_scores import PatchScores
from models.scores.score_file import read_scores
from pipeline.claim_check import comparison, trainings
from pipeline.claim_check.config import Arm, Cell, ClaimConfig, Setting
from pipeline.claim_check.jobs import Planner, Pretraining, Trial, scores_path


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Trials that are done, by arm, cell and seed.

    Attributes:
        claim: what is compared.
        planner: knows the encoders of a trial.
        chosen: setting of each arm.
        trials: by arm, cell and seed.
    """

    claim: ClaimConfig
    planner: Planner
    chosen: Mapping[Arm, Setting]
    trials: Mapping[tuple[Arm, Cell, int], Trial]

    def encoders(self, arm: Arm, cell: Cell, seed: int) -> list[Pretraining]:
        """What the trial's model started from."""
        return list(self.planner.pretrainings(arm, cell, self.chosen[arm], seed).values())

    def counts(self, arm: Arm, cell: Cell) -> comparison.Counts:
        """Confusion matrices [S, M, K, K] of the test patches, by seed."""
        seeds = range(self.claim.num_seeds)
        return np.stack([test_scores(self.trials[arm, cell, seed]).confusion for seed in seeds])

    def difference(
        self, ours: comparison.Counts, theirs: comparison.Counts, cell: Cell
    ) -> comparison.Difference:
        """Of two arms' counts on the test patches of `cell`."""
        block = test_scores(self.trials["multimodal", cell, 0]).block
        return comparison.compare(
            ours,
            theirs,
            block,
            confidence=self.claim.confidence,
            num_resamples=self.claim.num_resamples,
        )

    def describe(self, cell: Cell) -> dict[str, Any]:
        """The cell's entry in the document."""
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
            "num_patches": self.trials["multimodal", cell, 0].num_patches,
            "arms": {
                arm: {"mean_iou": float(iou.mean()), "mean_iou_by_seed": iou.tolist()}
                for arm, iou in by_seed.items()
            },
            "difference": settings.to_dict(over["simclr"]),
            "verdict": over["simclr"].verdict,
            "over": {arm: settings.to_dict(difference) for arm, difference in over.items()},
        }

    def seconds(self) -> dict[str, float]:
        """What each arm's encoders and trials took, in the processes that did them; settings not chosen are not in it."""
        folders: dict[Arm, set[str]] = {}
        for (arm, cell, seed), trial in self.trials.items():
            encoders = self.encoders(arm, cell, seed)
            folders.setdefault(arm, set()).update([trial.folder, *(job.folder for job in encoders)])
        return {
            arm: sum(trainings.result_of(folder)["seconds"] for folder in sorted(of_arm))
            for arm, of_arm in folders.items()
        }


def test_scores(trial: Trial) -> PatchScores:
    """Scores of a trial on the test split, which had no say in anything."""
    return read_scores(scores_path(trial.folder, "test"))


def eval_mean_iou(trial: Trial) -> float:
    """Mean IoU of a trial on the eval split, by which settings are chosen."""
    counts = read_scores(scores_path(trial.folder, "eval")).confusion
    return float(comparison.mean_iou(counts.sum(axis=0), counts.sum(axis=(0, 2)) > 0))
