"""Rollback: put an earlier version of a model in service again.

The version is tried first. Then the label `stable` moves to it, and the history gets a
line. Servers that read labels follow at their next look at `models.config`, and the
folders of newer versions stay, so that no request fails meanwhile. A server that serves
the largest number follows when the newer versions are moved aside.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from beam_jobs.contracts import published
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.published import CANARY, STABLE
from models.publishing import labels, store
from models.publishing.labels import Change


class RollbackError(TerrapairError, ValueError):
    """A rollback that cannot be done; one line."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a rollback does besides moving the label.

    Attributes:
        check: raises an error unless the version can be served.
        follow: called when the label has moved; tells servers.
        withdraw: move all that a server takes for a version with a larger number aside.
    """

    check: Callable[[Location], None]
    follow: Callable[[], None]
    withdraw: bool


def roll_back(model_dir: str | os.PathLike[str], to: int, reason: str, steps: Steps) -> Location:
    """Put version `to` in service; return its folder.

    If it is in service already, only what an interrupted rollback left is done.

    Raises:
        RollbackError: there is no such version, or no reason.
        TerrapairError: `steps.check` refuses it; nothing has changed then.
    """
    if not reason.strip():
        raise RollbackError("--reason: must say why, got an empty text")
    version = _find(model_dir, to)
    steps.check(version)
    old = published.in_service(model_dir)
    if version.parent.name == store.WITHDRAWN:
        version = store.restore(version)
    if old != version:
        # The label comes last, as in a publication: no change is without its line.
        if _last_of_history(model_dir) != to:
            labels.note(
                model_dir,
                Change(
                    at=labels.now(),
                    who=labels.myself(),
                    action="rollback",
                    label=STABLE,
                    old=None if old is None else int(old.name),
                    new=to,
                    reason=" ".join(reason.split()),
                ),
            )
        # The new `since` makes the gate judge again what it judged before.
        labels.put(model_dir, {STABLE: to, CANARY: None}, since=f"rollback to {to} {labels.now()}")
    steps.follow()
    if steps.withdraw:
        # Half a version of a larger number would keep the server from this one, too.
        store.remove_unfinished(model_dir)
        for number, folder in store.numbered(model_dir):
            if number > to:
                store.withdraw(folder)
    return version


def was_rolled_back(model_dir: str | os.PathLike[str], sha256: str) -> str | None:
    """Return why a model was taken out of service; None: it was not.

    Args:
        model_dir: folder of the model's versions.
        sha256: hash of the model, by `tree_sha256`.
    """
    base = locate(model_dir)
    refused: dict[int, str] = {}
    for change in labels.read_history(model_dir):
        if change.action == "rollback" and change.old is not None:
            why = f"version {change.old} was rolled back at {change.at}: {change.reason}"
            refused[change.old] = why
        if change.label == STABLE:
            refused.pop(change.new, None)
    for number, why in refused.items():
        for folder in (base / str(number), base / store.WITHDRAWN / str(number)):
            if folder.is_dir() and store.model_sha256(folder) == sha256:
                return why
    return None


def _last_of_history(model_dir: str | os.PathLike[str]) -> int | None:
    """Return the version that came into service last, as the history tells it."""
    served = [one.new for one in labels.read_history(model_dir) if one.label == STABLE]
    return served[-1] if served else None


def _find(model_dir: str | os.PathLike[str], number: int) -> Location:
    base = locate(model_dir)
    served = {int(path.name): path for path in published.versions(base)}
    aside = {int(path.name): path for path in published.versions(base / store.WITHDRAWN)}
    known = {**aside, **served}
    if number not in known:
        have = ", ".join(map(str, sorted(known))) or "none"
        raise RollbackError(
            f"--to {number}: {model_dir} has no complete version {number}; it has {have}"
        )
    return known[number]
