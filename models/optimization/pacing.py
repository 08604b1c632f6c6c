"""Paces: how fast, and from which step on, an optimizer updates each variable.

Input: a pace per variable. Output: rate, gradient and step count of one variable's
update. `regimes.py` makes paces; the optimizers of `optimizers.py` and `adamw.py` apply
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Pace(NamedTuple):
    """How one variable is updated.

    Attributes:
        factor: multiplies the learning rate, and with it the decay.
        first_step: updates of the optimizer before the first one of this variable.
    """

    factor: float = 1.0
    first_step: int = 0


class Paces:
    """A pace for each variable of an optimizer, in order; empty = all at full rate."""

    def __init__(self, paces: Iterable[Sequence[float]]) -> None:
        self._paces = tuple(Pace(float(factor), int(first_step)) for factor, first_step in paces)

    def check(self, variables: Sequence[Any]) -> None:
        """Refuse a number of variables that is not the number of paces.

        Raises:
            ValueError: with both numbers.
        """
        if self._paces and len(self._paces) != len(variables):
            raise ValueError(
                f"paces must be one for each of the {len(variables)} variables, "
                f"got {len(self._paces)}"
            )

    def at(
        self, index: int, gradient: Any, learning_rate: Any, iterations: Any
    ) -> tuple[Any, Any, Any]:
        """Return (gradient, rate, update number) for the update of variable `index`.

        The number counts from the variable's own first update. Before that, gradient
        and rate are 0, which leaves weights and slots as they are. From then on the
        variable changes as under an optimizer that starts there. One graph serves both.
        """
        number = iterations + 1
        factor, first_step = self._paces[index] if self._paces else Pace()
        rate = learning_rate if factor == 1.0 else learning_rate * factor
        if not first_step:
            return gradient, rate, number
        has_begun = iterations >= first_step
        # Not a product: an infinite gradient times 0 would be NaN.
        gradient = tf.where(has_begun, gradient, tf.zeros_like(gradient))
        return gradient, tf.where(has_begun, rate, 0.0), tf.maximum(number - first_step, 1)

    def as_lists(self) -> list[list[float]]:
        """Return the paces as plain values, for a config."""
        return [list(pace) for pace in self._paces]
