"""One node of a run in this process: what a task of Kubeflow does.

RunConfig, run id and node -> NodeRecord. The nodes before it must have ended, in this
process or in others: ML Metadata has their outputs, and the record of the run says how
they ended. "begin" and "report" are no nodes of TFX: the first checks and keeps the
settings of the run, the last writes its report and tells how the run ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from beam_jobs.contracts import layout, settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from beam_jobs.storage import locks
from beam_jobs.terminal import failures
from models.published.canary import peak_mib
from models.publishing.labels import now
from pipeline.config import RunConfig
from pipeline.data_build import data_sets
from pipeline.metadata_store import Place, check_place
from pipeline.runners import whole_run
from pipeline.runners.local import OnStep, compile_nodes, heard
from pipeline.runners.node_record import (
    BEGIN,
    CONFIG_NAME,
    GOOD,
    REPORT,
    NodeRecord,
    Outcome,
    RunFolder,
)
from pipeline.runners.nodes import Nodes, OnNotice
from pipeline.runners.retrying import retried
from pipeline.runners.whole_run import Finished
from pipeline.service.thresholds import check_thresholds
from pipeline.serving.following import follow_all

_STOPPING: dict[Literal["bad_data", "refused", "nothing_new"], ExitCode] = {
    "bad_data": ExitCode.BAD_DATA,
    "refused": ExitCode.REFUSED,
    "nothing_new": ExitCode.NOTHING_NEW,
}
"""Outcome of what is a result and no failure -> exit code, the gravest first."""
_RESULTS: dict[int, Outcome] = {code: outcome for outcome, code in _STOPPING.items()}


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Callbacks of a node; see `run_local`."""

    on_step: OnStep
    on_notice: OnNotice


def run_node(nodes: Nodes, folder: RunFolder, node: str, hearing: Hearing) -> NodeRecord:
    """Run a node, or skip it after a node that ended with a refusal; record the end.

    A node that ended well is not run again. After a kill at any time, the same call
    goes on.

    Args:
        nodes: of the run.
        folder: record of the run.
        node: id of one of the nodes.
        hearing: callbacks.

    Raises:
        SettingsError: no such node, or one before it has not run or has failed.
        DataError: another process runs the node.
        Exception: an error that is no result; it is recorded, too.
    """
    if node not in nodes.ids:
        raise SettingsError(
            f"--node: the run has no node {node!r}; it has {BEGIN}, {', '.join(nodes.ids)}, "
            f"{REPORT}"
        )
    with locks.hold(f"{folder.path}/locks/{node}", f"node {node} of run {folder.run_id}"):
        begun = NodeRecord(node=node, outcome="failed", began_at=now(), ended_at="")
        if (blocking := _blocking(folder, nodes, node)) is not None:
            record = replace(
                begun, outcome="skipped", reason=blocking.reason, origin=blocking.origin
            )
        else:
            with heard(hearing.on_step, hearing.on_notice):
                record = _launched(nodes, folder, begun)
        record = _ended(record)
        folder.write(record)
    return record


def _ended(record: NodeRecord) -> NodeRecord:
    """Return a record with the time and the memory of this moment."""
    # A node that had ended before keeps the memory of the work.
    peak = max(record.peak_mib, round(peak_mib(), 1))
    return replace(record, ended_at=now(), peak_mib=peak)


def _launched(nodes: Nodes, folder: RunFolder, begun: NodeRecord) -> NodeRecord:
    """Launch a node; return how it ended, or raise its error after recording it."""
    try:
        ended = nodes.launch(begun.node)
    except Exception as error:
        failure = failures.failure_of(error, "node")
        record = replace(
            begun, exit_code=failure.exit_code, reason=failure.message, origin=begun.node
        )
        if failure.exit_code in _RESULTS:
            return replace(record, outcome=_RESULTS[failure.exit_code])
        # The store that keeps the record may be what failed.
        with contextlib.suppress(Exception):
            folder.write(_ended(record))
        raise
    if ended == "done_before":
        before = folder.read(begun.node)
        is_known = before is not None and before.outcome in GOOD
        return before if before is not None and is_known else replace(begun, outcome="done")
    return replace(begun, outcome=ended)


def _blocking(folder: RunFolder, nodes: Nodes, node: str) -> NodeRecord | None:
    """Return the record of a node before this one that ended with a refusal.

    Raises:
        SettingsError: a node before it has not ended, or failed.
    """
    records = {one: folder.read(one) for one in nodes.upstream(node)}
    for name, record in records.items():
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
    blocked = [one for one in records.values() if one is not None and one.outcome not in GOOD]
    return blocked[0] if blocked else None


def begin_run(config: RunConfig, place: Place, folder: RunFolder) -> None:
    """Check what no single node can, and keep the settings of the run.

    Raises:
        SettingsError: the run was begun with other settings, a first model has no
            threshold, or the database refuses the user.
        DataError: the file of ML Metadata is damaged, or there are no shards.
        UnreachableDatabaseError: the database is gone.
    """
    begun = NodeRecord(node=BEGIN, outcome="done", began_at=now(), ended_at="")
    retried(lambda: check_place(place, is_written=True), config.retries, BEGIN, lambda *_: None)
    for data in data_sets(config):
        spans = {span for span, _ in layout.list_versions(data.root)}
        if not spans or (config.span is not None and config.span not in spans):
            what = "version of any span" if config.span is None else f"span {config.span}"
            raise DataError(
                f"{data.root}: holds no {what}: build it first, by `terrapair build-pairs` or "
                "`terrapair build-labels`",
                "no_version",
            )
    text = whole_run.resolved_text(config)
    if folder.read_config() is None:
        check_thresholds(config)
    folder.keep_config(text)
    with staged(locate(config.root) / CONFIG_NAME) as file:
        file.write_text(text)
    folder.write(_ended(begun))


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended that was done node by node.

    Attributes:
        outcome: "published", or what stopped it.
        exit_code: that of `terrapair run`.
        reasons: why models are not published, one sentence each.
        finished: the report; None: the run did not come so far.
    """

    outcome: Literal["published", "refused", "bad_data", "nothing_new", "failed"]
    exit_code: ExitCode
    reasons: tuple[str, ...]
    finished: Finished | None


def end_run(config: RunConfig, place: Place, folder: RunFolder) -> RunEnd:
    """Write the report of a run and how it ended; see `RunEnd`.

    Raises:
        UnreachableDatabaseError: the database is gone.
    """
    began_at = now()
    nodes = compile_nodes(config, place, folder.run_id, lambda *_: None)
    nodes.close_unfinished()
    ids = nodes.ids
    records = [record for node in ids if (record := folder.read(node)) is not None]
    first = [begun] if (begun := folder.read(BEGIN)) is not None else []
    ended = _end(config, place, folder, ids, records)
    document = {
        "outcome": ended.outcome,
        "exit_code": int(ended.exit_code),
        "reasons": list(ended.reasons),
        "nodes": {one.node: settings.to_dict(one) for one in (*first, *records)},
    }
    folder.write_result(document)
    outcome: Outcome = "done" if ended.outcome == "published" else ended.outcome
    last = NodeRecord(
        node=REPORT,
        outcome=outcome,
        began_at=began_at,
        ended_at="",
        exit_code=int(ended.exit_code),
        reason=" ".join(ended.reasons),
    )
    folder.write(_ended(last))
    return ended


def _end(
    config: RunConfig,
    place: Place,
    folder: RunFolder,
    ids: Sequence[str],
    records: Sequence[NodeRecord],
) -> RunEnd:
    stopped = [one for one in records if one.outcome not in (*GOOD, "skipped")]
    missing = sorted(set(ids) - {one.node for one in records})
    reasons = tuple(f"{one.node}: {one.reason}" for one in stopped)
    if missing or any(one.outcome == "failed" for one in stopped):
        if missing:
            reasons += (f"{len(missing)} of {len(ids)} nodes have not ended: {missing[0]}, ...",)
        return RunEnd(outcome="failed", exit_code=ExitCode.CRASH, reasons=reasons, finished=None)
    for outcome, code in _STOPPING.items():
        if outcome != "refused" and outcome in {one.outcome for one in stopped}:
            return RunEnd(outcome=outcome, exit_code=code, reasons=reasons, finished=None)
    finished = None
    # After a refusal the report may have nothing to show.
    with contextlib.suppress(DataError) if stopped else contextlib.nullcontext():
        finished = whole_run.read_finished(config, place, folder.run_id)
    if finished is not None:
        follow_all(config.root, config.serving_dir)
    if finished is None or stopped or finished.exit_code != ExitCode.DONE:
        reasons = reasons or (finished.refusals if finished else ())
        code = ExitCode.REFUSED
        return RunEnd(outcome="refused", exit_code=code, reasons=reasons, finished=finished)
    return RunEnd(outcome="published", exit_code=ExitCode.DONE, reasons=(), finished=finished)
