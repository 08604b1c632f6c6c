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
from models.publishing.labels import now
from pipeline.config import RunConfig
from pipeline.data_build import check_beam_options, data_sets
from pipeline.metadata_store import Place, check_place
from pipeline.runners import whole_run
from pipeline.runners.data_jobs import data_jobs
from pipeline.runners.local import OnStep, compile_nodes, heard
from pipeline.runners.node_record import (
    BEGIN,
    CONFIG_NAME,
    GOOD,
    REPORT,
    NodeRecord,
    Outcome,
    RunFolder,
    stopping,
)
from pipeline.runners.nodes import Nodes, OnNotice
from pipeline.runners.recorded import STOPPING, run_recorded, stamped
from pipeline.runners.retrying import retried
from pipeline.runners.whole_run import Finished
from pipeline.service.preconditions import check_preconditions
from pipeline.serving.following import follow_all


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Callbacks of a node; see `run_local`."""

    on_step: OnStep
    on_notice: OnNotice


def run_node(
    nodes: Nodes, folder: RunFolder, node: str, hearing: Hearing, first: Sequence[str] = ()
) -> NodeRecord:
    """Run a node, or skip it after a node that ended with a refusal; record the end.

    A node that ended well is not run again. After a kill at any time, the same call
    goes on.

    Args:
        nodes: of the run.
        folder: record of the run.
        node: id of one of the nodes.
        hearing: callbacks.
        first: data jobs of the run. All come before the nodes that wait for no other.

    Raises:
        SettingsError: no such node, or one before it has not run or has failed.
        DataError: another process runs the node.
        Exception: an error that is no result; it is recorded, too.
    """
    if node not in nodes.ids:
        raise SettingsError(
            f"--node: the run has no node {node!r}; it has "
            f"{', '.join((BEGIN, *first, *nodes.ids, REPORT))}"
        )

    def work(begun: NodeRecord) -> NodeRecord:
        with heard(hearing.on_step, hearing.on_notice):
            return _launched(nodes, folder, begun)

    return run_recorded(folder, node, nodes.upstream(node) or first, work)


def _launched(nodes: Nodes, folder: RunFolder, begun: NodeRecord) -> NodeRecord:
    """Launch a node; return how it ended."""
    ended = nodes.launch(begun.node)
    if ended == "done_before":
        before = folder.read(begun.node)
        is_known = before is not None and before.outcome in GOOD
        return before if before is not None and is_known else replace(begun, outcome="done")
    return replace(begun, outcome=ended)


def begin_run(config: RunConfig, place: Place, folder: RunFolder) -> None:
    """Check what no single node can, and keep the settings of the run.

    Raises:
        SettingsError: the run was begun with other settings, options of Beam are wrong,
            a first model has no threshold, or the database refuses the user.
        UnwritableError: the models could not be published.
        DataError: the file of ML Metadata is damaged, or there are no shards and the
            run builds none, or not the span that it reads.
        UnreachableDatabaseError: the database is gone.
    """
    begun = NodeRecord(node=BEGIN, outcome="done", began_at=now(), ended_at="")
    if config.data.build:
        check_beam_options(config)
    retried(lambda: check_place(place, is_written=True), config.retries, BEGIN, lambda *_: None)
    for data in data_sets(config):
        if config.data.build and config.span is None:
            # Its data job builds one.
            break
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
        check_preconditions(config)
    folder.keep_config(text)
    with staged(locate(config.root) / CONFIG_NAME) as file:
        file.write_text(text)
    folder.write(stamped(begun))


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
    ids = (*data_jobs(config), *nodes.ids)
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
    folder.write(stamped(last))
    return ended


def _end(
    config: RunConfig,
    place: Place,
    folder: RunFolder,
    ids: Sequence[str],
    records: Sequence[NodeRecord],
) -> RunEnd:
    stopped = [one for one in stopping(records) if one.outcome != "skipped"]
    ended = {one.node for one in records}
    missing = [node for node in ids if node not in ended]
    reasons = tuple(f"{one.node}: {one.reason}" for one in stopped)
    if missing or any(one.outcome == "failed" for one in stopped):
        if missing:
            reasons += (f"{len(missing)} of {len(ids)} nodes have not ended: {missing[0]}, ...",)
        return RunEnd(outcome="failed", exit_code=ExitCode.CRASH, reasons=reasons, finished=None)
    for outcome, code in STOPPING.items():
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
