"""Record what a training reports about its steps, and kill it at a given step."""

from __future__ import annotations

from collections.abc import Mapping


class KilledError(Exception):
    """Stands for a kill of the process. The training must not catch it."""


class Watch:
    """An `on_step` that keeps the loss of each step, and raises KilledError at `kill_at`."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.kill_at = kill_at
        self.losses: dict[int, float] = {}
        self.last: dict[str, float] = {}

    def __call__(self, step: int, num_steps: int, scalars: Mapping[str, float]) -> None:
        self.losses[step], self.last = scalars["loss"], dict(scalars)
        if step == self.kill_at:
            raise KilledError
