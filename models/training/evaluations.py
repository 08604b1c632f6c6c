"""Evaluations within a training: a score every N steps, and the best step's weights.

Input: a function that measures the model as it is now. Output: the history of scores,
when the training stops early, and the model with the weights of its best step. History
and weights are part of each checkpoint, so a training that was killed decides as if it
had not been.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from models.training.distribution import value_of_chief

Measure = Callable[[], Mapping[str, float]]
"""Returns the scores, by name, of the model as it would be published now.

It must neither change the model nor draw from a global seed: a training with
evaluations takes the same steps as one without.
"""

Weights = tuple[npt.NDArray[Any], ...]
"""Values of all variables of a model, in their order."""

_LOGGER = logging.getLogger("terrapair.training")
"""The run's console shows what is logged here."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The score that decides, after one step.

    Attributes:
        step: number of updates done.
        score: larger is better; NaN = nothing could be measured.
    """

    step: int
    score: float


@dataclass(frozen=True, kw_only=True)
class EvalRule:
    """When a training is evaluated, and what follows from it.

    Attributes:
        score: name of the score that decides, among those that are measured.
        every: steps between evaluations. The last step is evaluated, too.
        keeps_best: whether the training ends with the weights of the best step, not
            with those of the last one.
        patience: evaluations in a row without a better score after which the training
            stops; None = it takes all steps.
        patient_after: evaluations up to this step do not count for `patience`.
    """

    score: str
    every: int
    keeps_best: bool
    patience: int | None = None
    patient_after: int = 0


class Evaluations:
    """The evaluations of one training.

    Attributes:
        rule: when and what for.
        history: all evaluations so far, oldest first.
        best_weights: of the best step; None before the first score, and unless the rule
            keeps them. They lie in the memory of the host, not of a device.
    """

    def __init__(self, model: keras.Model, measure: Measure, rule: EvalRule) -> None:
        """Begin without an evaluation.

        Args:
            model: what is trained.
            measure: called after a step, on all workers.
            rule: when and what for.
        """
        self.rule = rule
        self.history: tuple[Evaluation, ...] = ()
        self.best_weights: Weights | None = None
        self._model, self._measure = model, measure

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the largest score, the earliest of equal ones.

        None when nothing could be measured so far.
        """
        known = [one for one in self.history if not math.isnan(one.score)]
        return max(known, key=lambda one: one.score, default=None)

    @property
    def kept_step(self) -> int:
        """Step whose weights the training ends with if it ended now; 0 = the first."""
        if self.rule.keeps_best and self.best is not None:
            return self.best.step
        return self.history[-1].step if self.history else 0

    @property
    def is_over(self) -> bool:
        """Whether the training stops, since patience is at its end."""
        if self.rule.patience is None:
            return False
        from_step = max(self.rule.patient_after, self.best.step if self.best else 0)
        return sum(one.step > from_step for one in self.history) >= self.rule.patience

    def resume(self, history: tuple[Evaluation, ...], best_weights: Weights | None) -> None:
        """Go on from what an earlier attempt saved.

        Without the weights of its best step, the earlier evaluations cannot win.
        """
        if self.rule.keeps_best and best_weights is None:
            history = ()
        self.history, self.best_weights = history, best_weights

    def is_due(self, step: int, num_steps: int) -> bool:
        """Return whether the model is evaluated after `step`."""
        return step % self.rule.every == 0 or step == num_steps

    def add(self, step: int, strategy: tf.distribute.Strategy) -> Mapping[str, float]:
        """Evaluate the model after `step`; return all of its scores.

        The score of the chief decides on all workers. Otherwise float noise could make
        one of them stop, and the others would wait for it.
        """
        before, scores = self.best, self._measure()
        score = value_of_chief(strategy, float(scores[self.rule.score]))
        self.history = (*self.history, Evaluation(step=step, score=score))
        if self.rule.keeps_best and self.best != before:
            self.best_weights = tuple(variable.numpy() for variable in self._model.variables)
        return scores

    def describe(self) -> dict[str, Any]:
        """Return the evaluations as JSON values, for a card; None replaces NaN."""
        return {
            "score": self.rule.score,
            "kept_step": self.kept_step,
            "best_step": self.best.step if self.best else None,
            "best_score": self.best.score if self.best else None,
            "history": [
                {"step": one.step, "score": None if math.isnan(one.score) else one.score}
                for one in self.history
            ],
        }

    def conclude(self, num_steps: int, strategy: tf.distribute.Strategy) -> None:
        """Give the model the weights of the best step, if the rule keeps them."""
        if not self.history:
            return
        name, last, best = self.rule.score, self.history[-1].step, self.best
        if self.is_over and last < num_steps:
            _LOGGER.info(
                "stopped after step %d of %d: no better %s in %d evaluations",
                last,
                num_steps,
                name,
                self.rule.patience,
            )
        if not self.rule.keeps_best:
            return
        if best is None or self.best_weights is None:
            _LOGGER.warning(
                "%s could not be measured in any of %d evaluations: the weights of the last step, "
                "%d, are kept; check the labels of the eval split",
                name,
                len(self.history),
                last,
            )
            return
        # In the scope, the copies of the variables on all replicas are assigned.
        with strategy.scope():
            for variable, value in zip(self._model.variables, self.best_weights, strict=True):
                variable.assign(value)
        _LOGGER.info(
            "kept step %d of %d: %s %.4f, the best of %d evaluations",
            best.step,
            num_steps,
            name,
            best.score,
            len(self.history),
        )
