"""Ledger: what was asked of Earth Engine, what came and what failed.

Input: one entry per event. Output: lines of JSON in one file per writer, and the state
of every unit. It survives `kill -9`. This module works on a folder on a disk;
`ledger_store.py` brings the ledger of an object store into one.

There are no locks. Each writer has a file of its own and appends one line per `write`.
A line that a crash or a full disk cut short is not an entry, so its request is asked
again.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.storage import files

Event = Literal["chosen", "answered", "started", "failed", "done", "rejected"]
"""chosen: the images of a unit are known. answered: a request was answered. started: an
export task runs. failed: a request failed and may be asked again. done: the unit's
files are complete. rejected: the unit will not come; the entry says why."""

Finished = Literal["done", "rejected"]
"""Events after which nothing more is asked for a unit."""
Step = Literal["list", "s1", "s2", "task"]
"""Purpose of a request: the scenes of a unit, the pixels of a sensor, or a task's
state."""

LEDGER_DIR = "ledger"
REJECTED_NAME = "rejected.ndjson"
_FINISHED: dict[str, Finished] = {"done": "done", "rejected": "rejected"}
_LOGGER = logging.getLogger(__name__)


class LedgerWriter:
    """Appends entries to a new file; any number of threads may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Each writer gets a new name, so nobody appends to a line that a crash cut
        # short. Names begin with the time, so files sort in the order of the runs: a
        # later task replaces an earlier one of the same unit.
        self._path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.ndjson"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, unit: str, event: Event, **details: Any) -> int:
        """Write one entry and return a number for `sync`.

        Raises:
            OSError: the disk took less than the whole line.
        """
        line = line_of(unit, event, details)
        if os.write(self._file, line) != len(line):
            raise OSError(
                f"{self._path}: the disk is full; free some space and run the command again"
            )
        return 0

    def sync(self, number: int) -> None:
        """Do nothing: an entry that was added outlives the process."""

    def close(self) -> None:
        """Close the file; an empty file is removed."""
        os.close(self._file)
        if not self._path.stat().st_size:
            self._path.unlink()


def line_of(unit: str, event: Event, details: dict[str, Any]) -> bytes:
    """Return one entry as a line of the file."""
    return (
        json.dumps({"unit": unit, "event": event, **details}, separators=(",", ":")) + "\n"
    ).encode()


@dataclass(kw_only=True)
class LedgerState:
    """The state of all units, merged from the entries.

    Attributes:
        finished: unit -> "done" or "rejected".
        pending: unit -> merged details of its `chosen` and `started` entries, as long
            as it is not finished.
        num_failures: reason -> failed requests that were or will be asked again.
        num_rejected: reason -> units that are rejected now.
        num_done: units that are done.
        num_requests: requests that were answered or failed.
        num_bytes: bytes received.
        num_answers: step -> requests that were answered; "list" also counts `chosen`
            entries.
        eecu_seconds: compute that Earth Engine reported.
        num_with_eecu: pixel requests for which it reported compute.
        request_seconds: sum of the durations of all requests.
    """

    finished: dict[str, Finished] = field(default_factory=dict)
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_failures: Counter[str] = field(default_factory=Counter)
    num_rejected: Counter[str] = field(default_factory=Counter)
    num_done: int = 0
    num_requests: int = 0
    num_bytes: int = 0
    num_answers: Counter[str] = field(default_factory=Counter)
    eecu_seconds: float = 0.0
    num_with_eecu: int = 0
    request_seconds: float = 0.0
    _rejected_for: dict[str, str] = field(default_factory=dict)

    def take(self, entry: dict[str, Any]) -> None:
        """Add one entry.

        The entries of a unit may come from several files in any order, so `done` always
        wins.
        """
        unit, event = str(entry["unit"]), str(entry["event"])
        self.num_requests += int(entry.get("num_requests", 0))
        self.request_seconds += float(entry.get("request_seconds", 0.0))
        if event == "failed":
            self.num_failures[sys.intern(str(entry.get("reason")))] += 1
        elif event == "answered":
            self.num_answers[str(entry.get("step"))] += 1
            self.num_bytes += int(entry.get("num_bytes", 0))
            if entry.get("eecu_seconds") is not None:
                self.eecu_seconds += float(entry["eecu_seconds"])
                self.num_with_eecu += 1
        elif event in ("chosen", "started"):
            self.num_answers["list" if event == "chosen" else event] += 1
            if unit not in self.finished:
                self.pending.setdefault(unit, {}).update(entry)
        else:
            self._finish(unit, _FINISHED[event], entry)

    def _finish(self, unit: str, event: Finished, entry: dict[str, Any]) -> None:
        before = self.finished.get(unit)
        if before == "done" or before == event:
            return
        self.finished[unit] = event
        self.pending.pop(unit, None)
        if before == "rejected":
            self._forget_rejection(unit)
        if event == "rejected":
            reason = sys.intern(str(entry.get("reason")))
            self._rejected_for[unit] = reason
            self.num_rejected[reason] += 1
            return
        self.num_done += 1

    def _forget_rejection(self, unit: str) -> None:
        reason = self._rejected_for.pop(unit)
        self.num_rejected[reason] -= 1
        self.num_rejected += Counter()

    def forget_rejected(self) -> None:
        """Treat rejected units as never asked, for `--retry-rejected`."""
        for unit in self._rejected_for:
            del self.finished[unit]
        self._rejected_for.clear()
        self.num_rejected.clear()


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry and where it lies.

    Attributes:
        path: file of the entry.
        offset: byte at which its line begins.
        values: keys and values of the line.
    """

    path: Path
    offset: int
    values: dict[str, Any]


def read_entries(folder: Path) -> Iterator[StoredEntry]:
    """Yield every whole entry of a ledger, file by file.

    A line that was cut short is left out, and a warning gives the number of them.
    """
    for path in sorted(folder.glob("*.ndjson")):
        num_torn = 0
        with path.open("rb") as lines:
            offset = 0
            for line in lines:
                entry = _parse(line)
                if entry is None:
                    num_torn += 1
                else:
                    yield StoredEntry(path, offset, entry)
                offset += len(line)
        if num_torn:
            _LOGGER.warning("%s: skipped %d lines that were cut short", path, num_torn)


def read_state(folder: Path, belongs: Callable[[str], bool] = lambda _: True) -> LedgerState:
    """Return the state of the units that `belongs` accepts.

    A worker reads only its own share.
    """
    state = LedgerState()
    for entry in read_entries(folder):
        if belongs(str(entry.values["unit"])):
            state.take(entry.values)
    return state


class LedgerTail:
    """Counts finished units while workers write, and reads each byte once.

    A unit that is asked again counts again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: Counter[Path] = Counter()
        self._num_finished = 0

    def num_finished(self) -> int:
        """Return the number of `done` and `rejected` entries so far."""
        for path in self._folder.glob("*.ndjson"):
            with path.open("rb") as file:
                file.seek(self._offsets[path])
                added = file.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._offsets[path] += len(whole)
            self._num_finished += sum(
                whole.count(b'"event":"%s"' % event.encode()) for event in _FINISHED
            )
        return self._num_finished


def repair(folder: Path) -> int:
    """Cut off incomplete last lines, before any writer begins.

    Returns:
        Number of files that had one.
    """
    num_torn = 0
    for path in folder.glob("*.ndjson"):
        with path.open("rb+") as file:
            content_end = _end_of_last_line(file)
            if content_end != file.seek(0, os.SEEK_END):
                file.truncate(content_end)
                num_torn += 1
    return num_torn


def done_entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the `done` entry of every unit, sorted by unit.

    Only the position of each entry is held in memory.
    """
    where: dict[str, tuple[Path, int]] = {}
    for entry in read_entries(folder):
        if entry.values["event"] == "done":
            where.setdefault(str(entry.values["unit"]), (entry.path, entry.offset))
    yield from _read_at(where)


def write_rejected(folder: Path, path: str) -> int:
    """Write `rejected.ndjson` and return the number of rejected units.

    It holds unit, reason and detail of every unit that is rejected now. An object store
    has no empty files, so the file is removed there when nothing is rejected.
    """
    where: dict[str, tuple[Path, int]] = {}
    done = set()
    for entry in read_entries(folder):
        unit = str(entry.values["unit"])
        if entry.values["event"] == "done":
            done.add(unit)
        elif entry.values["event"] == "rejected":
            where[unit] = (entry.path, entry.offset)
    standing = {unit: at for unit, at in where.items() if unit not in done}
    lines = []
    for values in _read_at(standing):
        kept = {name: values.get(name) for name in ("unit", "reason", "detail")}
        lines.append(json.dumps(kept, sort_keys=True) + "\n")
    if not lines and is_remote(path):
        files.delete_file(path)
    else:
        files.write_bytes(path, "".join(lines).encode())
    return len(standing)


def _read_at(where: dict[str, tuple[Path, int]]) -> Iterator[dict[str, Any]]:
    opened = {path: path.open("rb") for path in {path for path, _ in where.values()}}
    try:
        for unit in sorted(where):
            path, offset = where[unit]
            opened[path].seek(offset)
            yield json.loads(opened[path].readline())
    finally:
        for file in opened.values():
            file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"unit", "event"} <= entry.keys() else None


def _end_of_last_line(file: Any) -> int:
    """Return the offset after the last newline."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        step = min(end, 1 << 16)
        file.seek(end - step)
        found = file.read(step).rfind(b"\n")
        if found >= 0:
            return int(end - step + found + 1)
        end -= step
    return 0
