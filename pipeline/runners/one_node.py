"""One node of a run in this process: what a task of Kubeflow does.

RunConfig, run id and node -> NodeRecord. The nodes before it must have ended, in this
process or in others: ML Metadata has their outputs, and the record of the run says how
they ended. "begin" and "report" are no nodes of TFX: the first checks and keeps the
settings of the run, the last writes its report and tells how the run ended.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.storage import locks
from beam_jobs.terminal import failures
from models.publishing.labels import now
from pipeline.config import RunConfig
from pipeline.metadata_store import Place
from pipeline.runners.local import OnStep, compile_nodes, heard
from pipeline.runners.node_record import GOOD, NodeRecord, Outcome, RunFolder
from pipeline.runners.nodes import Nodes, OnNotice

RESULT_NAME = "result.json"
"""How the run ended, beside the records of its nodes; written by "report"."""
_RESULTS: dict[int, Outcome] = {
    ExitCode.BAD_DATA: "bad_data",
    ExitCode.REFUSED: "refused",
    ExitCode.NOTHING_NEW: "nothing_new",
}
"""Exit code -> outcome of what is a result and no failure."""


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Callbacks of a node; see `run_local`."""

    on_step: OnStep
    on_notice: OnNotice


def run_node(
    config: RunConfig, place: Place, folder: RunFolder, node: str, hearing: Hearing
) -> NodeRecord:
    """Run a node, or skip it after a node that ended with a refusal; record the end.

    A node that ended well is not run again. After a kill at any time, the same call
    goes on.

    Args:
        config: the run.
        place: where ML Metadata is.
        folder: record of the run.
        node: id of a node.
        hearing: callbacks.

    Raises:
        SettingsError: no such node, or one before it has not run or has failed.
        DataError: another process runs the node.
        Exception: an error that is no result; it is recorded, too.
    """
    nodes = compile_nodes(config, place, folder.run_id, hearing.on_notice)
    if node not in nodes.ids:
        raise SettingsError(
            f"--node: {config.name} has no node {node!r}; it has begin, {', '.join(nodes.ids)}, "
            "report"
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
        folder.write(replace(record, ended_at=now()))
    return record


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
            folder.write(replace(record, ended_at=now()))
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


def write_result(folder: RunFolder, records: Sequence[NodeRecord], document: Any) -> None:
    """Write how a run ended.

    Args:
        folder: record of the run.
        records: of all its nodes.
        document: plain values of the end.
    """
    with staged(locate(folder.path) / RESULT_NAME) as file:
        nodes = {one.node: settings.to_dict(one) for one in records}
        file.write_text(json.dumps({**document, "nodes": nodes}, indent=2, sort_keys=True) + "\n")


def read_all(config: RunConfig, place: Place, folder: RunFolder) -> list[NodeRecord]:
    """Return the records of all nodes of a run, in topological order.

    Raises:
        SettingsError: a node has not ended.
    """
    ids = compile_nodes(config, place, folder.run_id, lambda *_: None).ids
    found = {node: folder.read(node) for node in ids}
    missing = [node for node, record in found.items() if record is None]
    if missing:
        raise SettingsError(
            f"report: {len(missing)} of {len(ids)} nodes have not ended in run {folder.run_id}, "
            f"{missing[0]} first: run them before"
        )
    return [record for record in found.values() if record is not None]
