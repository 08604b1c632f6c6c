"""Paces: how fast, and from which step on, an optimizer updates each variable.

Input: a pace per variable. Output: rate, gradient and number of one variable's update.
`regimes.py` makes paces; the optimizers of `optimizers.py` and `adamw.py` apply them.
"""

from __future__ import annotations

import functools
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

    def at(self, learning_rate: Any, iterations: Any) -> tuple[Any, Any]:
        """Return (rate, update number) after `iterations` updates of the optimizer.

        The number counts from the variable's own first update. Before that, the rate is
        0, which leaves weights and slots as they are where the gradient is 0, too. From
        then on the variable changes as under an optimizer that starts there. One graph
        serves both.
        """
        number = iterations + 1
        rate = learning_rate if self.factor == 1.0 else learning_rate * self.factor
        if not self.first_step:
            return rate, number
        rate = tf.where(iterations >= self.first_step, rate, 0.0)
        return rate, tf.maximum(number - self.first_step, 1)

    def begun(self, gradient: Any, iterations: Any) -> Any:
        """Return the gradient, or 0 before the variable's own first update."""
        if not self.first_step:
            return gradient
        # Not a product: an infinite gradient times 0 would be NaN.
        return tf.where(iterations >= self.first_step, gradient, tf.zeros_like(gradient))


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

    @functools.cached_property
    def distinct(self) -> tuple[Pace, ...]:
        """Each pace once."""
        return tuple(dict.fromkeys(self._paces)) or (Pace(),)

    def of(self, index: int) -> Pace:
        """Return the pace of variable `index`."""
        return self._paces[index] if self._paces else Pace()

    def as_lists(self) -> list[list[float]]:
        """Return the paces as plain values, for a config."""
        return [list(pace) for pace in self._paces]
