"""Task files: one YAML file is one downstream task that any run can use by name.

The plain values of a run, whose `tasks` may name files -> the same values with every
task written out, as RunConfig needs them. The values are merged here and checked in
`config.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beam_jobs.config import LabelConfig, SplitConfig
from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from models.segment_config import SegmentConfig

TASKS_DIR = Path(__file__).parent / "tasks"
"""The shipped tasks."""
OWN_TASKS_DIR = "tasks"
"""Folder beside a run's file that holds tasks of one's own.

They can be used by name too, and take precedence over shipped tasks of the same name.
"""
_GROUPS_WITH_PATHS = {"label": LabelConfig, "segment": SegmentConfig, "split": SplitConfig}


@dataclass(frozen=True, kw_only=True)
class Expanded:
    """A run's values with its tasks written out.

    Attributes:
        values: values of the run.
        files: position in `tasks` -> file that the task was read from.
    """

    values: dict[str, Any]
    files: dict[int, Path] = field(default_factory=dict)


def name_groups(values: Any) -> Any:
    """Return the run's values with each bare task name `flood` as `{use: flood}`.

    Overrides such as `tasks.0.segment.num_steps=4` need a group to go into.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("tasks"), list):
        return values
    return {
        **values,
        "tasks": [{"use": task} if isinstance(task, str) else task for task in values["tasks"]],
    }


def expand(values: Mapping[str, Any], folder: Path) -> Expanded:
    """Return the run's values with its tasks written out.

    In `- {use: flood, ...}` the keys beside `use` override those of the file: groups
    are merged, other values are replaced, and an empty group `{}` clears a group.

    A segmenter without an encoder or a label schema gets the run's pretraining encoder
    and the schema of its task's label.

    The hold-outs of a task (`split.holdouts`) move to the run's pairs, which all tasks
    share. So neither pretraining nor another task sees what one task is tested on.

    Args:
        values: values of the run; not changed.
        folder: folder of the run's file; paths of task files are relative to it.

    Raises:
        SettingsError: no such task, its file is not a YAML mapping, or it changes the
            split by more than hold-outs.
    """
    expanded = Expanded(values=copy.deepcopy(dict(name_groups(values))))
    tasks = expanded.values.get("tasks")
    # Values of a wrong type are skipped here: the type check reports them with their
    # path.
    for position, task in enumerate(tasks if isinstance(tasks, list) else []):
        if not isinstance(task, dict):
            continue
        if "use" in task:
            path = _find(task.pop("use"), folder, position)
            expanded.files[position] = path
            task = _merged(_read(path), task)
        _complete(task, expanded.values.get("pretrain"))
        _move_holdouts(task, expanded.values, position)
        expanded.values["tasks"][position] = task
    return expanded


def known_tasks(folder: Path) -> dict[str, Path]:
    """Return name -> file of the shipped tasks and of those beside a run's file."""
    own = folder / OWN_TASKS_DIR
    return {
        path.stem: path for source in (TASKS_DIR, own) for path in sorted(source.glob("*.yaml"))
    }


def _find(use: object, folder: Path, position: int) -> Path:
    known = known_tasks(folder)
    if isinstance(use, str) and use in known:
        return known[use]
    # A bare word was meant as a name, so do not try to open a file.
    if isinstance(use, str) and ("/" in use or use.endswith((".yaml", ".yml"))):
        return folder / use
    raise SettingsError(
        f"tasks[{position}].use: no task {use!r}; known: {', '.join(sorted(known))}, "
        "or the path of a YAML file"
    )


def _read(path: Path) -> dict[str, Any]:
    content = settings.read_yaml(path, "task")
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a task must be a mapping, got {type(content).__name__}")
    try:
        return resolve_paths(content, path.parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def resolve_paths(task: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values of a task with its paths resolved against its file's folder.

    Raises:
        SettingsError: see `settings.resolve_paths`.
    """
    return {
        key: settings.resolve_paths(_GROUPS_WITH_PATHS[key], value, folder, key)
        if key in _GROUPS_WITH_PATHS
        else value
        for key, value in task.items()
    }


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = base.get(key)
        # Merging `{}` would change nothing, so it means: clear the group.
        result[key] = (
            _merged(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping) and value
            else value
        )
    return result


def _complete(task: dict[str, Any], pretrain: Any) -> None:
    """Fill in what the task leaves out: the segmenter's encoder and label schema.

    Own classes without a name get that of the task.
    """
    segment, label = task.get("segment"), task.get("label")
    if isinstance(label, dict) and label.get("classes") and "name" in task:
        label.setdefault("schema", task["name"])
    if not isinstance(segment, dict):
        return
    if isinstance(pretrain, dict) and "encoder" in pretrain:
        segment.setdefault("encoder", copy.deepcopy(pretrain["encoder"]))
    if isinstance(label, dict) and "schema" in label:
        segment.setdefault("label_schema", label["schema"])
        if label.get("classes"):
            segment.setdefault("label_classes", copy.deepcopy(label["classes"]))


def _move_holdouts(task: dict[str, Any], run: dict[str, Any], position: int) -> None:
    """Move the hold-outs of a task's `split` to the run's pairs, each only once."""
    split = task.pop("split", None) or {}
    if (
        not isinstance(split, dict)
        or set(split) - {"holdouts"}
        or not isinstance(split.get("holdouts", []), list)
    ):
        raise SettingsError(
            f"tasks[{position}].split: a task may only add a list of holdouts to the run's split, "
            f"got {split!r}"
        )
    if not split.get("holdouts"):
        return
    known = ((run.get("pairs") or {}).get("split") or {}).get("holdouts") or []
    new = [holdout for holdout in split["holdouts"] if holdout not in known]
    run["pairs"] = _merged(run.get("pairs") or {}, {"split": {"holdouts": [*known, *new]}})
