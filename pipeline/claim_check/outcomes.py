"""Results of the trials of a claim check: counts, differences, cells and cost.

Trials that are done -> the numbers of the claim document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from beam_jobs.contracts import settings
from beam_jobs.contracts.layout import Split
from beam_jobs.errors import DataError
from models.intervals import FloatArray, Resampling
from models.scores.patch_scores import PatchScores
from models.scores.score_file import read_scores
from models.scores.units import units_of
from pipeline.claim_check import comparison, measures
from pipeline.claim_check.config import Arm, Cell, ClaimConfig, MeasureName, Setting
from pipeline.claim_check.jobs import Planner, Trial
from pipeline.claim_check.measures import MEASURES, Measure
from pipeline.training_jobs import Pretraining, result_of, scores_path


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

    def tables(self, arm: Arm, cell: Cell) -> FloatArray:
        """Return the tables of the test units [S, U, ..., T, A] by the primary score.

        S is the number of seeds, U that of the units.
        """
        return self.tables_of(self._by_seed(arm, cell))

    def tables_of(self, trials: Sequence[Trial]) -> FloatArray:
        """Return the tables of trials of one cell, one trial for each seed."""
        return self._all_tables(trials, [self.claim.score])[self.claim.score]

    def _by_seed(self, arm: Arm, cell: Cell) -> list[Trial]:
        """Return the trials of an arm in a cell, one for each seed."""
        return [self.trials[TrialKey(arm, cell, seed)] for seed in range(self.claim.num_seeds)]

    def _all_tables(
        self, trials: Sequence[Trial], names: Iterable[MeasureName]
    ) -> dict[MeasureName, FloatArray]:
        """Return the tables of trials by measure; read each file of scores once."""
        found: dict[MeasureName, list[FloatArray]] = {name: [] for name in names}
        for trial in trials:
            scores = test_scores(trial)
            units = units_of(scores, self.claim.unit).of_patch
            for name, tables in found.items():
                answers = scores
                if name == "mean_iou_tuned" and scores.threshold is not None:
                    answers = measures.tuned(scores, eval_scores(trial))
                tables.append(measures.by_unit(MEASURES[name].table(answers), units))
        return {name: np.stack(tables) for name, tables in found.items()}

    def difference(self, ours: FloatArray, theirs: FloatArray) -> comparison.Difference:
        """Return the difference of two arms' tables by the primary score."""
        return comparison.compare(
            ours.reshape(*ours.shape[:2], -1),
            theirs.reshape(*theirs.shape[:2], -1),
            self.measure.statistic(ours, 2),
            np.arange(ours.shape[1]),
            Resampling(confidence=self.claim.confidence, num_resamples=self.claim.num_resamples),
        )

    @property
    def measure(self) -> Measure:
        """The primary score."""
        return MEASURES[self.claim.score]

    def describe(
        self, cell: Cell, permuted: Mapping[Arm, Sequence[Trial]] | None = None
    ) -> dict[str, Any]:
        """Return the cell's entry in the claim document.

        Args:
            cell: which one.
            permuted: trials of each arm on labels of other patches, by seed, where
                there are any.
        """
        by_arm = {
            arm: self._all_tables(self._by_seed(arm, cell), MEASURES) for arm in self.claim.arms
        }
        tables = {arm: of_arm[self.claim.score] for arm, of_arm in by_arm.items()}
        over = {
            arm: self.difference(tables["multimodal"], of_arm)
            for arm, of_arm in tables.items()
            if arm != "multimodal"
        }
        constant = measures.constant(tables["multimodal"], self.measure)
        above = [
            arm
            for arm, of_arm in tables.items()
            if all(
                self.difference(of_arm, floor).is_certain
                for floor in self._floors(arm, of_arm, constant, permuted or {})
            )
        ]
        score = self.measure.statistic(constant, 2)
        first = self.trials[TrialKey("multimodal", cell, 0)]
        scores = test_scores(first)
        units = units_of(scores, self.claim.unit)
        return {
            **settings.to_dict(cell),
            "name": cell.name,
            "num_patches": first.num_patches,
            "unit": units.name,
            "num_units": units.count,
            "arms": {
                arm: _describe_arm(of_arm, scores.class_names) for arm, of_arm in by_arm.items()
            },
            "difference": settings.to_dict(over["simclr"]),
            "verdict": over["simclr"].verdict if above else "cannot decide",
            "over": {arm: settings.to_dict(difference) for arm, difference in over.items()},
            "constant": float(score(constant.sum(axis=(0, 1)).reshape(1, -1))[0]),
            "arms_above_floor": above,
        }

    def _floors(
        self,
        arm: Arm,
        of_arm: FloatArray,
        constant: FloatArray,
        permuted: Mapping[Arm, Sequence[Trial]],
    ) -> Iterator[FloatArray]:
        """Yield tables of answers that know nothing, which an arm must exceed."""
        yield constant
        yield measures.at_random(of_arm)
        if arm in permuted:
            yield self.tables_of(permuted[arm])

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each arm's encoders and trials, summed over processes.

        Settings that were tried and not chosen are left out.
        """
        folders: dict[Arm, set[str]] = {}
        for key, trial in self.trials.items():
            encoders = [job.folder for job in self.encoders(key)]
            folders.setdefault(key.arm, set()).update([trial.folder, *encoders])
        return {
            arm: sum(result_of(folder)["seconds"] for folder in sorted(of_arm))
            for arm, of_arm in folders.items()
        }


def _describe_arm(
    by_measure: Mapping[MeasureName, FloatArray], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return each score of an arm: mean over seeds, and by seed."""
    described: dict[str, Any] = {}
    for name, tables in by_measure.items():
        measure = MEASURES[name]
        sums = tables.sum(axis=1).reshape(len(tables), -1)
        by_seed = measure.statistic(tables, 2)(sums)
        described |= {name: float(by_seed.mean()), f"{name}_by_seed": by_seed.tolist()}
        if name == "average_precision":
            ranked = class_names[1:] if len(class_names) == 2 else class_names
            by_class = np.nanmean(measure.by_class(tables.sum(axis=1)), axis=0)
            described["average_precision_by_class"] = {
                title: None if np.isnan(value) else float(value)
                for title, value in zip(ranked, by_class, strict=True)
            }
    return described


def test_scores(trial: Trial) -> PatchScores:
    """Return the scores of a trial on the test split, which no choice depends on."""
    return _scores(trial, "test")


def eval_scores(trial: Trial) -> PatchScores:
    """Return the scores of a trial on the eval split, by which choices are made."""
    return _scores(trial, "eval")


def eval_score(trial: Trial, name: MeasureName) -> float:
    """Return a score of a trial on the eval split, by which settings are chosen."""
    scores = eval_scores(trial)
    if name == "mean_iou_tuned":
        scores = measures.tuned(scores, scores)
    tables = MEASURES[name].table(scores)
    sums = tables.sum(axis=0).reshape(1, -1)
    return float(MEASURES[name].statistic(tables, 1)(sums)[0])


def _scores(trial: Trial, split: Split) -> PatchScores:
    try:
        return read_scores(scores_path(trial.folder, split))
    except ValueError as error:
        raise DataError(f"{error}: delete {trial.folder} and run again") from error
