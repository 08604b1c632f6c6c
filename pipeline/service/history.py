"""History: what ran, what was published, and what was served when.

Folder of a run -> a table for the terminal and an HTML page. It comes from the record
of attempts to retrain, from ML Metadata (runs and the spans they read), from the
records of refused spans, from the published versions (cards and verdicts), and from the
history of each model.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich.markup import escape as plain
from rich.table import Table

from beam_jobs.contracts import published, windows
from beam_jobs.contracts.locations import Location, locate
from models.gate import verdict as verdict_lib
from models.publishing import labels, store
from models.publishing.labels import Change
from pipeline.html_page import page_head
from pipeline.refused_spans import RefusedSpan
from pipeline.report.run_record import RunRecord
from pipeline.service.attempts import Attempt

_SHORT = 12
_Part = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, columns and rows of one table."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the pipeline.

    Attributes:
        started_at: UTC time, ISO 8601.
        spans: data set -> "span.version" that it read.
        num_ran: components that ran.
        num_cached: components that the cache answered.
        failed: components that failed or were killed. A run that was killed between two
            components has none.
    """

    started_at: str
    spans: dict[str, str]
    num_ran: int
    num_cached: int
    failed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Version:
    """One published version.

    Attributes:
        model: its model.
        number: its number.
        is_withdrawn: whether it was moved aside by a rollback.
        span: "span.version" of the data that it was trained on; "" = unknown.
        data_sha256: start of the hash of that data's manifest; "" = unknown.
        gate: why the gate blessed it; "" = there is no verdict.
        served: from and until when it was in service, UTC; until "" = now.
    """

    model: str
    number: int
    is_withdrawn: bool
    span: str
    data_sha256: str
    gate: str
    served: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class History:
    """The history of one serving folder, each list with the oldest first."""

    runs: tuple[Run, ...]
    versions: tuple[Version, ...]
    changes: tuple[tuple[str, Change], ...]
    """(model, change) by time."""
    attempts: tuple[Attempt, ...] = ()
    refused: tuple[RefusedSpan, ...] = ()


def read_history(
    serving_dir: str,
    runs: Sequence[RunRecord],
    attempts: Sequence[Attempt] = (),
    refused: Sequence[RefusedSpan] = (),
) -> History:
    """Return the history of all models of a serving folder.

    Args:
        serving_dir: base folder of all published models.
        runs: of the pipeline, the oldest first.
        attempts: to retrain, the oldest first.
        refused: data of the runs that were set aside.

    Raises:
        DamagedFileError: a file is not what was written.
    """
    root = locate(serving_dir)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    versions, changes = [], []
    for folder in folders:
        own = labels.read_history(folder)
        changes.append([(folder.name, change) for change in own])
        periods = served_periods(own)
        found = [*published.versions(folder), *published.versions(folder / store.WITHDRAWN)]
        versions += [
            _version(folder.name, path, periods)
            for path in sorted(found, key=lambda path: int(path.name))
        ]
    return History(
        runs=tuple(map(_run, runs)),
        versions=tuple(versions),
        # Each model's own order stays, also after the clock was set back.
        changes=tuple(heapq.merge(*changes, key=lambda item: item[1].at)),
        attempts=tuple(attempts),
        refused=tuple(refused),
    )


def served_periods(changes: Sequence[Change]) -> dict[int, list[tuple[str, str]]]:
    """Return version -> when it was in service, as (from, until); until "" = now."""
    periods: dict[int, list[tuple[str, str]]] = {}
    current: tuple[int, str] | None = None
    for change in changes:
        if change.label != published.STABLE:
            continue
        if current is not None:
            periods.setdefault(current[0], []).append((current[1], change.at))
        current = (change.new, change.at)
    if current is not None:
        periods.setdefault(current[0], []).append((current[1], ""))
    return periods


def document(history: History) -> dict[str, Any]:
    """Return the history as plain values."""
    return {
        "attempts": [vars(attempt) for attempt in history.attempts],
        "runs": [vars(run) for run in history.runs],
        "set_aside": [{"data": one.data, **vars(one.record)} for one in history.refused],
        "versions": [vars(version) for version in history.versions],
        "changes": [{"model": model, **vars(change)} for model, change in history.changes],
    }


def tables(history: History) -> list[Table]:
    """Return the tables for the terminal."""
    shown = []
    for title, columns, rows in _parts(history):
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(plain, row))
        shown.append(table)
    return shown


def page(history: History, title: str) -> str:
    """Return the history as one HTML page."""
    parts = [page_head(title)]
    for heading, columns, rows in _parts(history):
        head = "".join(f"<th>{escape(column)}</th>" for column in columns)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        parts.append(f"<h2>{escape(heading)}</h2>\n<table><tr>{head}</tr>\n{body}\n</table>")
    return "\n".join(parts) + "\n"


def _parts(history: History) -> list[_Part]:
    runs: list[tuple[str, ...]] = [
        (
            run.started_at,
            ", ".join(f"{name} {span}" for name, span in run.spans.items()),
            f"{run.num_ran} ran, {run.num_cached} cached",
            f"failed at {', '.join(run.failed)}" if run.failed else "no component failed",
        )
        for run in history.runs
    ]
    versions: list[tuple[str, ...]] = [
        (
            f"{version.model} {version.number}" + (" (withdrawn)" if version.is_withdrawn else ""),
            version.span,
            version.data_sha256,
            "\n".join(f"{start} to {end or 'now'}" for start, end in version.served) or "never",
            version.gate,
        )
        for version in history.versions
    ]
    changes: list[tuple[str, ...]] = [
        (
            change.at,
            change.who,
            f"{change.action} {model}",
            f"{'none' if change.old is None else change.old} to {change.new}"
            if change.label
            else str(change.new),
            change.reason,
        )
        for model, change in history.changes
    ]
    return [
        *([_attempts_part(history.attempts)] if history.attempts else []),
        ("Runs", ("started (UTC)", "data: span.version", "components", "end"), runs),
        *([_refused_part(history.refused)] if history.refused else []),
        ("Versions", ("version", "data", "data hash", "in service (UTC)", "gate"), versions),
        ("Changes", ("at (UTC)", "who", "what", "from to", "why"), changes),
    ]


def _attempts_part(attempts: Sequence[Attempt]) -> _Part:
    rows: list[tuple[str, ...]] = [
        (
            attempt.started_at + _cause(attempt),
            attempt.ended_at or "did not end",
            _outcome(attempt, is_last=attempt is attempts[-1]),
            ", ".join(f"{name} {span}" for name, span in attempt.data.items()),
            ", ".join(f"{model} {number}" for model, number in sorted(attempt.published.items())),
            "\n".join(attempt.reasons),
        )
        for attempt in attempts
    ]
    columns = ("started (UTC)", "ended (UTC)", "outcome", "newest data", "published", "reasons")
    return "Attempts to retrain", columns, rows


def _cause(attempt: Attempt) -> str:
    """Return why an attempt trained although no scene was new; "" = one was."""
    drifted = ", ".join(f"{name} {span}" for name, span in attempt.drift.items())
    return f"\nby drift of {drifted}" if drifted else ""


def _refused_part(refused: Sequence[RefusedSpan]) -> _Part:
    rows: list[tuple[str, ...]] = [
        (
            f"{one.data} {one.record.name}",
            one.record.at,
            one.record.put_back_at or "not put back",
            "\n".join(one.record.reasons),
        )
        for one in refused
    ]
    columns = ("data: span.version", "set aside (UTC)", "put back (UTC)", "reasons")
    return "Spans that were refused", columns, rows


def _outcome(attempt: Attempt, *, is_last: bool) -> str:
    if attempt.ended_at:
        return f"{attempt.outcome.replace('_', ' ')} (exit code {attempt.exit_code})"
    # Attempts hold the lock, so a later one shows that this one is over.
    return "killed, or still at work" if is_last else "killed"


def _run(record: RunRecord) -> Run:
    spans = {}
    for component in record.components:
        kind, _, name = component.component_id.partition("-")
        if kind == "ImportExampleGen" and "examples" in component.outputs:
            found = component.outputs["examples"].properties
            # ExampleGen writes the window into its output (`components/shard_gen.py`).
            window = found.get("window")
            spans[name] = (
                windows.describe(windows.from_json(str(window)), ".")
                if window
                else f"{found.get('span', '?')}.{found.get('version', '?')}"
            )
    return Run(
        started_at=record.started_at.isoformat(timespec="seconds"),
        spans=spans,
        num_ran=sum(one.is_complete and not one.is_cached for one in record.components),
        num_cached=record.num_cached,
        failed=tuple(one.component_id for one in record.components if not one.is_complete),
    )


def _version(model: str, folder: Location, periods: dict[int, list[tuple[str, str]]]) -> Version:
    card = published.read_card(str(folder))
    gate = folder / store.GATE
    reason = ""
    if gate.exists() and model != "encoder":
        reason = "; ".join(verdict_lib.from_json(gate.read_text()).reasons)
    return Version(
        model=model,
        number=int(folder.name),
        is_withdrawn=folder.parent.name == store.WITHDRAWN,
        span=windows.describe(windows.of_card(card), "."),
        data_sha256=str(card.get("data_manifest_sha256") or "")[:_SHORT],
        gate=reason,
        served=tuple(periods.get(int(folder.name), ())),
    )
