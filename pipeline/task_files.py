"""Task files: one YAML file is one downstream task that any run can take by name.

Input: the plain values of a run, whose `tasks` may name files. Output: the same values
with every task written out, as RunConfig wants them. Called by
`config.load_run_config`; nothing here knows what a task means.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from beam_jobs.contracts.settings import SettingsError

TASKS_DIR = Path(__file__).parent / "tasks"
"""The shipped tasks."""
OWN_TASKS_DIR = "tasks"
"""Folder beside a run's file whose tasks have names there, too; one of a shipped name goes before the shipped one."""


@dataclass(frozen=True, kw_only=True)
class Expanded:
    """A run's values with its tasks written out.

    Attributes:
        values: of the run.
        files: position in `tasks` -> file that the task was taken from.
    """

    values: dict[str, Any]
    files: dict[int, Path] = field(default_factory=dict)


def name_groups(values: Any) -> Any:
    """The run's values with each bare name `flood` as `{use: flood}`, so that overrides find a group to go into."""
    if not isinstance(values, Mapping) or not isinstance(values.get("tasks"), list):
        return values
    return {
        **values,
        "tasks": [{"use": task} if isinstance(task, str) else task for task in values["tasks"]],
    }


def expand(values: Mapping[str, Any], folder: Path) -> Expanded:
    """The run's values with its tasks written out.

    Of `- {use: flood, ...}` the keys beside `use` override those of the file: groups
    are merged, anything else replaces, and an empty group `{}` clears one. A segmenter
    for which no encoder or label schema is named gets those of the run's pretraining
    and of its task's label. What a task holds out (`split.holdouts`) moves to the run's
    pairs, which all tasks share: what one task is tested on, neither pretraining nor
    another task may see.

    Args:
        values: of the run; left as they are.
        folder: of the run's file; paths of task files are relative to it.

    Raises:
        SettingsError: no such task, its file is no YAML mapping, or it changes the
            split by more than hold-outs.
    """
    expanded = Expanded(values=copy.deepcopy(dict(name_groups(values))))
    tasks = expanded.values.get("tasks")
    # What is wrong in kind is left for the check of types, which names its place.
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
    """Name -> file of the shipped tasks and of those in `tasks` beside a run's file."""
    own = folder / OWN_TASKS_DIR
    return {
        path.stem: path for source in (TASKS_DIR, own) for path in sorted(source.glob("*.yaml"))
    }


def _find(use: object, folder: Path, position: int) -> Path:
    known = known_tasks(folder)
    if isinstance(use, str) and use in known:
        return known[use]
    # A bare word was meant as a name: "no such file" would not help.
    if isinstance(use, str) and ("/" in use or use.endswith((".yaml", ".yml"))):
        return folder / use
    raise SettingsError(
        f"tasks[{position}].use: no task {use!r}; known: {', '.join(sorted(known))}, or the path of a YAML file"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the task: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a task must be a mapping, got {type(content).__name__}")
    return content


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = base.get(key)
        # Merging with nothing would change nothing, so `{}` can only mean: none of it.
        result[key] = (
            _merged(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping) and value
            else value
        )
    return result


def _complete(task: dict[str, Any], pretrain: Any) -> None:
    """Gives the segmenter what it takes over where the task says nothing else: the run's encoder, its own label's schema."""
    segment, label = task.get("segment"), task.get("label")
    if not isinstance(segment, dict):
        return
    if isinstance(pretrain, dict) and "encoder" in pretrain:
        segment.setdefault("encoder", copy.deepcopy(pretrain["encoder"]))
    if isinstance(label, dict) and "schema" in label:
        segment.setdefault("label_schema", label["schema"])


def _move_holdouts(task: dict[str, Any], run: dict[str, Any], position: int) -> None:
    """Takes `split` out of a task; its hold-outs join those of the run's pairs, once where several tasks have the same."""
    split = task.pop("split", None) or {}
    if (
        not isinstance(split, dict)
        or set(split) - {"holdouts"}
        or not isinstance(split.get("holdouts", []), list)
    ):
        raise SettingsError(
            f"tasks[{position}].split: a task may only add a list of holdouts to the run's split, got {split!r}"
        )
    if not split.get("holdouts"):
        return
    known = ((run.get("pairs") or {}).get("split") or {}).get("holdouts") or []
    new = [holdout for holdout in split["holdouts"] if holdout not in known]
    run["pairs"] = _merged(run.get("pairs") or {}, {"split": {"holdouts": [*known, *new]}})
