"""Work of one node with its record: skip it, do it, and write down how it ended.

RunFolder, node and a function -> NodeRecord. A result such as a refusal is recorded and
returned, so that later nodes are skipped. An error is recorded and raised.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.terminal import failures
from models.published.canary import peak_mib
from models.publishing.labels import now
from pipeline.runners import root
from pipeline.runners.node_record import NodeRecord, Outcome, RunFolder, stopping

STOPPING: dict[Literal["bad_data", "refused", "nothing_new"], ExitCode] = {
    "bad_data": ExitCode.BAD_DATA,
    "refused": ExitCode.REFUSED,
    "nothing_new": ExitCode.NOTHING_NEW,
}
"""Outcome of what is a result and no failure -> exit code, the gravest first."""
_RESULTS: dict[int, Outcome] = {code: outcome for outcome, code in STOPPING.items()}


def run_recorded(
    folder: RunFolder,
    node: str,
    upstream: Sequence[str],
    work: Callable[[NodeRecord], NodeRecord],
) -> NodeRecord:
    """Do the work of a node, or skip it after a node that ended with a refusal.

    Args:
        folder: record of the run.
        node: its id.
        upstream: nodes that must have ended.
        work: gets a record that has begun, and returns how it ended.

    Raises:
        SettingsError: a node before it has not run or has failed.
        DataError: another process runs the node, or `terrapair run` works on the root.
        Exception: an error that is no result; it is recorded, too.
    """
    with root.hold_node(folder.root, folder.run_id, node):
        begun = NodeRecord(node=node, outcome="failed", began_at=now(), ended_at="")
        if (blocking := _blocking(folder, node, upstream)) is not None:
            record = replace(
                begun, outcome="skipped", reason=blocking.reason, origin=blocking.origin
            )
        else:
            record = _done(folder, begun, work)
        record = stamped(record)
        folder.write(record)
    return record


def stamped(record: NodeRecord) -> NodeRecord:
    """Return a record with the time and the memory of this moment."""
    # A node that had ended before keeps the memory of the work.
    peak = max(record.peak_mib, round(peak_mib(), 1))
    return replace(record, ended_at=now(), peak_mib=peak)


def _done(
    folder: RunFolder, begun: NodeRecord, work: Callable[[NodeRecord], NodeRecord]
) -> NodeRecord:
    """Return how the work ended, or raise its error after recording it."""
    try:
        return work(begun)
    except Exception as error:
        failure = failures.failure_of(error, "node")
        record = replace(
            begun, exit_code=failure.exit_code, reason=failure.message, origin=begun.node
        )
        if failure.exit_code in _RESULTS:
            return replace(record, outcome=_RESULTS[failure.exit_code])
        # The store that keeps the record may be what failed.
        with contextlib.suppress(Exception):
            folder.write(stamped(record))
        raise


def _blocking(folder: RunFolder, node: str, upstream: Sequence[str]) -> NodeRecord | None:
    """Return the record of a node before this one that ended with a refusal.

    Raises:
        SettingsError: a node before it has not ended, or failed.
    """
    records: list[NodeRecord] = []
    for name in upstream:
        record = folder.read(name)
        if record is None:
            raise SettingsError(
                f"{node}: {name} comes before it and has not ended in run {folder.run_id}: run "
                f"it first, --node {name}"
            )
        if record.outcome == "failed":
            raise SettingsError(
                f"{node}: {name} comes before it and failed ({record.reason}): run it again "
                f"first, --node {name}"
            )
        records.append(record)
    return next(iter(stopping(records)), None)
