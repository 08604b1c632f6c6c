"""Which version is in service, and the history of that.

`<serving folder>/<model>/labels.json` holds the labels, and `history.ndjson` beside it
one line for each change: who, when, why, from which version to which. Both are written
whole and appear at once, also on an object store.
"""

from __future__ import annotations

import datetime
import getpass
import json
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from beam_jobs.contracts import published
from beam_jobs.contracts.locations import content_of, locate, staged
from beam_jobs.contracts.published import LABELS_NAME, Label, Labels

HISTORY_NAME = "history.ndjson"
Action = Literal["publish", "rollback", "label", "remove"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One line of a model's history.

    Attributes:
        at: UTC time, ISO 8601.
        who: user and machine.
        action: what was done.
        label: that was set; "" = none, for `remove`.
        old: version that had the label; None = none.
        new: version that has the label now, or that was removed.
        reason: why.
        run: name of the run that published the version; "" = none.
    """

    at: str
    who: str
    action: Action
    label: str
    old: int | None
    new: int
    reason: str
    run: str = ""


def state_of(model_dir: str | os.PathLike[str], run: str = "") -> str:
    """Return an identifier of what was in service before the current version.

    A gate that is part of TFX's cached graph takes it as a parameter. It is the same in
    a repeated run whose model is in service already, and it changes after a rollback.
    With nothing in service it is `run`, so that the nodes of one run agree although
    each may be in a process of its own.

    Args:
        model_dir: folder of the model's versions.
        run: id that no other run has; "" = one that is new each time.
    """
    if published.in_service(model_dir) is None:
        return run or uuid.uuid4().hex
    return published.read_labels(model_dir).since


def put(
    model_dir: str | os.PathLike[str], versions: Mapping[Label, int | None], since: str
) -> None:
    """Set labels; None removes one. Others stay.

    Args:
        model_dir: folder of the model's versions.
        versions: label -> version.
        since: see `Labels`.
    """
    merged = dict(published.read_labels(model_dir).versions)
    for label, version in versions.items():
        merged.pop(label, None)
        if version is not None:
            merged[label] = version
    document = Labels(versions=merged, since=since)
    with staged(locate(model_dir) / LABELS_NAME) as file:
        file.write_text(json.dumps(asdict(document), sort_keys=True) + "\n")


def note(model_dir: str | os.PathLike[str], change: Change) -> None:
    """Append a line to the model's history."""
    path = locate(model_dir) / HISTORY_NAME
    before = path.read_text() if path.exists() else ""
    with staged(path) as file:
        file.write_text(before + json.dumps(asdict(change), sort_keys=True) + "\n")


def read_history(model_dir: str | os.PathLike[str]) -> list[Change]:
    """Return the history of a model, the oldest change first.

    Raises:
        DamagedFileError: a line is not what was written.
    """
    path = locate(model_dir) / HISTORY_NAME
    if not path.exists():
        return []
    with content_of(path, "move it aside: a new history begins then"):
        return [Change(**json.loads(line)) for line in path.read_text().splitlines()]


def now() -> str:
    """Return the time as `Change.at` has it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def myself() -> str:
    """Return user and machine as `Change.who` has them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number without a name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
