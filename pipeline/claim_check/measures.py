"""Measures: the scores by which arms are compared, as sums over patches.

PatchScores -> a table [..., truth, answer] for each patch, and a function from summed
tables to the score. All tables have true classes in rows and answers in columns, so a
model that answers by chance, or always the same, is a table too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import intervals, metrics
from models.intervals import AnyArray, FloatArray
from models.scores.calibration import at_threshold, best_threshold
from models.scores.patch_scores import PatchScores
from models.scores.ranking import average_precision
from pipeline.claim_check.config import MeasureName

Tables = npt.NDArray[np.number]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One way to score summed tables.

    Attributes:
        title: name on the page.
        table: function from the scores of patches to tables [M, ..., T, A].
        by_class: function from tables [..., T, A] (of `average_precision` [..., C, 2,
            B]) to the score of each class [..., C]; NaN where it is not defined.
    """

    title: str
    table: Callable[[PatchScores], Tables]
    by_class: Callable[[FloatArray], FloatArray]

    def statistic(self, ours: Tables, num_axes: int) -> Callable[[FloatArray], FloatArray]:
        """Return the function from flattened sums [..., P] to the score [...].

        The score is NaN where no class is left.

        Args:
            ours: tables of one arm; their classes that are true somewhere are scored,
                in all arms and resamples alike. A class that occurs neither in truth
                nor in prediction of a resample is left out there.
            num_axes: number of leading axes of `ours` that are not the table's.
        """
        shape = ours.shape[num_axes:]
        truth = ours.sum(axis=tuple(range(num_axes))).sum(axis=-1)
        is_true = truth[..., 1] > 0 if truth.ndim == 2 else truth > 0

        def score(sums: FloatArray) -> FloatArray:
            by_class = self.by_class(sums.reshape(*sums.shape[:-1], *shape))
            present = np.isfinite(by_class) & is_true
            total = np.where(present, by_class, 0.0).sum(axis=-1)
            return metrics.ratio(total, present.sum(axis=-1))

        return score


MEASURES: dict[MeasureName, Measure] = {
    "mean_iou": Measure(
        title="mean IoU",
        table=lambda scores: scores.confusion,
        by_class=metrics.iou_per_class,
    ),
    "mean_iou_tuned": Measure(
        title="mean IoU, threshold from eval",
        table=lambda scores: scores.confusion,
        by_class=metrics.iou_per_class,
    ),
    "average_precision": Measure(
        title="average precision",
        table=lambda scores: scores.probability_counts,
        by_class=average_precision,
    ),
}
"""The most probable classes; of two classes, those at the threshold that is best on
`eval` (see `tuned`); and the mean over the classes without any threshold."""


def tuned(test: PatchScores, on_eval: PatchScores) -> PatchScores:
    """Return `test` at the threshold that is best on `on_eval`, of two classes.

    Scores of more classes have no threshold and do not change.
    """
    if test.threshold is None:
        return test
    return at_threshold(test, best_threshold(on_eval.probability_counts[:, 0]))


def by_unit(tables: Tables, units: AnyArray) -> FloatArray:
    """Return the sums of tables [M, ...] over the patches of each unit [U, ...]."""
    flat = tables.reshape(len(tables), -1).astype(np.float64)
    return intervals.sum_units(flat, units).reshape(-1, *tables.shape[1:])


def at_random(tables: FloatArray) -> FloatArray:
    """Return the tables of the same answers, given at random.

    Each seed's share of each answer stays as it is over all patches, and no longer
    depends on the truth.

    Args:
        tables: [S, U, ..., T, A].
    """
    answers = tables.sum(axis=(1, -2), keepdims=True)
    shares = answers / np.maximum(answers.sum(axis=-1, keepdims=True), 1.0)
    return tables.sum(axis=-1, keepdims=True) * shares


def constant(tables: FloatArray, measure: Measure) -> FloatArray:
    """Return the tables of the best constant answer.

    Args:
        tables: [S, U, ..., T, A] of any arm.
        measure: how answers are scored.
    """
    truth = tables.sum(axis=-1, keepdims=True)
    score = measure.statistic(tables, 2)
    candidates = [
        truth * (np.arange(tables.shape[-1]) == answer)
        for answer in range(1 if tables.ndim == 5 else tables.shape[-1])
    ]
    totals = [score(found.sum(axis=(0, 1)).reshape(1, -1))[0] for found in candidates]
    return candidates[int(np.argmax(totals))]
