"""Paces: how fast, and from when on, an optimizer moves each variable.

Input: a pace per variable. Output: rate, gradient and step count of one variable's
update. Paces come from `regimes.py`; the optimizers of `optimizers.py` and `adamw.py`
keep to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Pace(NamedTuple):
    """How one variable is moved.

    Attributes:
        factor: of the learning rate, and so of the decay too.
        first_step: updates of the optimizer before the first of this variable.
    """

    factor: float = 1.0
    first_step: int = 0


class Paces:
    """A pace for each of the variables an optimizer is built with, in order; none = all at the full rate from the start."""

    def __init__(self, paces: Iterable[Sequence[float]]) -> None:
        self._paces = tuple(Pace(float(factor), int(first_step)) for factor, first_step in paces)

    def check(self, variables: Sequence[Any]) -> None:
        """Refuses variables that are more or fewer than the paces.

        Raises:
            ValueError: with both numbers.
        """
        if self._paces and len(self._paces) != len(variables):
            raise ValueError(
                f"paces must be one for each of the {len(variables)} variables, got {len(self._paces)}"
            )

    def at(
        self, index: int, gradient: Any, learning_rate: Any, iterations: Any
    ) -> tuple[Any, Any, Any]:
        """What the update of variable `index` takes: (gradient, rate, number of this update counted from the variable's first).

        Before its first step the gradient and the rate are 0, which leaves weights and
        slots as they are; from then on the variable is moved as by an optimizer that
        starts there. One graph serves both.
        """
        number = iterations + 1
        factor, first_step = self._paces[index] if self._paces else Pace()
        rate = learning_rate if factor == 1.0 else learning_rate * factor
        if not first_step:
            return gradient, rate, number
        has_begun = iterations >= first_step
        # Not a product: the gradient may be infinite, which times 0 is NaN.
        gradient = tf.where(has_begun, gradient, tf.zeros_like(gradient))
        return gradient, tf.where(has_begun, rate, 0.0), tf.maximum(number - first_step, 1)

    def as_lists(self) -> list[list[float]]:
        """For a config."""
        return [list(pace) for pace in self._paces]
