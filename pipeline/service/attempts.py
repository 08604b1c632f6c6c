"""Attempts: what each `retrain` of a run did, however it ended.

`<root>/retrain.ndjson` holds one line for each. The line is there before the work
begins, so a process that was killed leaves one that never ended.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from beam_jobs.contracts import settings
from beam_jobs.contracts.locations import Location, content_of, locate, staged
from beam_jobs.contracts.published import ENCODER_NAME
from models.publishing import labels

RECORD_NAME = "retrain.ndjson"
Data = tuple[str, str]
"""Data set, and "span.version" of one of its versions."""
Outcome = Literal["unfinished", "published", "unchanged", "refused", "failed", "nothing_new"]
"""How an attempt ended.

"unfinished": it works, or was killed. "published": at least one new version is in
service, and nothing was refused. "unchanged": the models in service are those that the
run made. "refused": a gate refused data or a model. "failed": an error.
"""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One line of the record.

    Attributes:
        id: random name of the attempt.
        started_at: UTC time, ISO 8601.
        config_sha256: of the run's settings.
        ended_at: UTC time; "" = it has not ended.
        outcome: how it ended.
        exit_code: of the process; None = it has not ended.
        data: data set -> "span.version" of its newest version at the end.
        published: model -> version that went into service.
        reasons: of a refusal or an error, one sentence each.
        drift: data set -> "span.version" of the data whose drift started the training,
            as no scene was new. Empty = scenes, or nothing, started one.
    """

    id: str
    started_at: str
    config_sha256: str
    ended_at: str = ""
    outcome: Outcome = "unfinished"
    exit_code: int | None = None
    data: dict[str, str] = field(default_factory=dict)
    published: dict[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    drift: dict[str, str] = field(default_factory=dict)


def begin(root: str | os.PathLike[str], config_sha256: str) -> Attempt:
    """Append the line of a new attempt; return it.

    Raises:
        DamagedFileError: the record is not what was written.
    """
    attempt = Attempt(id=uuid.uuid4().hex, started_at=labels.now(), config_sha256=config_sha256)
    _write(root, [*read_attempts(root), attempt])
    return attempt


def update(root: str | os.PathLike[str], attempt: Attempt) -> None:
    """Replace the line of an attempt by what is known now."""
    _write(root, [attempt if one.id == attempt.id else one for one in read_attempts(root)])


def read_attempts(root: str | os.PathLike[str]) -> list[Attempt]:
    """Return the attempts of a run, the oldest first.

    Raises:
        DamagedFileError: a line is not what was written.
    """
    path = _path(root)
    if not path.exists():
        return []
    with content_of(path, "move it aside: a new record begins then"):
        return [
            settings.from_dict(Attempt, json.loads(line)) for line in path.read_text().splitlines()
        ]


def tried(earlier: Sequence[Attempt], put_back: Collection[Data], *, warm_start: bool) -> set[Data]:
    """Return the data whose drift starts no further training.

    Drift of one version starts one training at most, also if that was killed. Neither
    do data whose models would be the same again: only a warm start from an encoder that
    was published meanwhile makes another training of equal data.

    Args:
        earlier: attempts.
        put_back: data that were set aside for a while, so the attempts that found them
            did not train on them.
        warm_start: whether pretraining starts from the encoder in service.
    """
    trained: set[Data] = set()
    for one in earlier:
        is_trained = one.outcome in ("published", "unchanged", "refused")
        if is_trained and not (warm_start and ENCODER_NAME in one.published):
            trained |= set(one.data.items())
    return trained.difference(put_back) | {item for one in earlier for item in one.drift.items()}


def restart(earlier: Sequence[Attempt], newest: Mapping[str, str]) -> str:
    """Return the id of the last attempt that drift of these data started; "" = none.

    Whatever runs on the same data afterwards must find what that attempt trained.

    Args:
        earlier: attempts, the oldest first.
        newest: data set -> "span.version" of its newest version.
    """
    own = [one.id for one in earlier if one.drift and one.drift.items() <= newest.items()]
    return own[-1] if own else ""


def _write(root: str | os.PathLike[str], attempts: Sequence[Attempt]) -> None:
    lines = (json.dumps(settings.to_dict(one), sort_keys=True) for one in attempts)
    with staged(_path(root)) as file:
        file.write_text("".join(f"{line}\n" for line in lines))


def _path(root: str | os.PathLike[str]) -> Location:
    return locate(root) / RECORD_NAME
