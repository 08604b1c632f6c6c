"""Choice of the tasks to cross-validate, checked before anything heavy is imported.

RunConfig and options -> tasks, or an error of one line.
"""

from __future__ import annotations

from collections.abc import Sequence

from beam_jobs.config import MIN_FOLDS
from beam_jobs.contracts.settings import SettingsError
from pipeline.config import RunConfig, TaskConfig


def choose_tasks(config: RunConfig, names: Sequence[str]) -> list[TaskConfig]:
    """Return the tasks to cross-validate.

    Args:
        config: the run.
        names: names of the tasks; empty = all.

    Raises:
        SettingsError: the run has no folds or no tasks, a name is unknown, or a task
            has a teacher.
    """
    if not config.pairs.split.folds:
        raise SettingsError(
            f"pairs.split.folds: cross-validate needs at least {MIN_FOLDS} folds, got 0: "
            "add --set pairs.split.folds=5"
        )
    known = {task.name: task for task in config.tasks}
    for name in names:
        if name not in known:
            raise SettingsError(
                f"--task: no task {name!r} in the config; it has {', '.join(known) or 'none'}"
            )
    tasks = [known[name] for name in dict.fromkeys(names or known)]
    if not tasks:
        raise SettingsError("tasks: cross-validate needs at least one task, got none")
    for task in tasks:
        if task.distill is not None:
            raise SettingsError(
                f"tasks: {task.name!r} has a teacher (distill), which cross-validate does not "
                "train: choose other tasks by --task, or set its distill to null"
            )
    return tasks
