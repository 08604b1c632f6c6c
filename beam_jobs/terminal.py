"""Terminal: what commands share to read settings and to show progress. Called by `__main__.py` and the command modules.

Input: options. Output: checked configs, a progress bar on stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from beam_jobs.contracts import settings

CONSOLE = Console(stderr=True)


def load_config(cls: type[Any], path: str | None, overrides: tuple[str, ...]) -> Any:
    """The config of a YAML file, or the defaults, with `--set` overrides."""
    if path is not None:
        return settings.load_yaml(cls, path, overrides)
    return settings.from_dict(cls, settings.apply_overrides({}, overrides))


class progress:  # noqa: N801 - reads as a verb where it is used
    """A progress bar whose `update(done, total)` a job calls."""

    def __init__(self, unit: str) -> None:
        columns = (
            TextColumn(unit),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=CONSOLE)
        self._task = self._progress.add_task(unit, total=None)

    def __enter__(self) -> Callable[[int, int], None]:
        self._progress.start()
        return lambda done, total: self._progress.update(self._task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
