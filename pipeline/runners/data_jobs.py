"""The data jobs of a run as nodes: build-pairs, and build-labels of each task.

RunConfig, run and node -> NodeRecord. They come before the nodes of TFX, in any order,
and each may be a process on a machine of its own. TFX is not imported.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from beam_jobs import runner
from beam_jobs.contracts import layout
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.object_store import is_remote
from pipeline.config import RunConfig
from pipeline.data_build import DataSet, OnProgress, Stage, build_data_set, data_sets
from pipeline.runners.node_record import GOOD, NodeRecord, RunFolder
from pipeline.runners.recorded import run_recorded
from pipeline.runners.retrying import retried


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """Callbacks of a data job.

    Attributes:
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.
        on_notice: called with one line, and True for a warning.
    """

    stage: Stage
    on_progress: OnProgress
    on_notice: Callable[[str, bool], None]


def data_jobs(config: RunConfig) -> dict[str, DataSet]:
    """Return node -> data set; empty: the shards of the run are there already."""
    return {data.job: data for data in data_sets(config)} if config.data.build else {}


def run_job(config: RunConfig, folder: RunFolder, node: str, progress: JobProgress) -> NodeRecord:
    """Build a data set of a run if that is needed; record which version it is.

    The outcome is "done" after a build, and "cached" if the version was there. With
    `data.new_span` it is "nothing_new" if the newest version is old and a run has used
    it. A job that ended well is not done again.

    Args:
        config: the run.
        folder: record of the run.
        node: one of `data_jobs`.
        progress: callbacks.

    Raises:
        DataError: another process does the job.
        Exception: an error that is no result; it is recorded, too.
    """
    data = data_jobs(config)[node]

    def work(begun: NodeRecord) -> NodeRecord:
        known = folder.read(node)
        if known is not None and known.outcome in GOOD:
            return known
        if config.span is not None:
            # `begin` has checked that it is there.
            of_span = [one for one in layout.list_versions(data.root) if one[0] == config.span]
            return replace(begun, outcome="cached", version=_name(of_span[-1]))
        before = layout.list_versions(data.root)
        with _work_dir(config, node) as work_dir:
            version = retried(
                lambda: build_data_set(
                    config, data, work_dir, progress.stage, progress.on_progress
                ),
                config.retries,
                node,
                progress.on_notice,
            )
        ended = replace(begun, version=_name(version))
        if version not in before:
            return replace(ended, outcome="done")
        if config.data.new_span and ended.version in folder.versions_of_ended_runs(node):
            return replace(
                ended,
                outcome="nothing_new",
                exit_code=ExitCode.NOTHING_NEW,
                reason=f"{data.root}: every scene is in an earlier span, or has no partner: a run "
                f"has used the newest version, {ended.version}; data.new_span=false uses it again",
                origin=node,
            )
        return replace(ended, outcome="cached")

    return run_recorded(folder, node, (), work)


def _name(version: tuple[int, int]) -> str:
    return "{}.{}".format(*version)


@contextmanager
def _work_dir(config: RunConfig, node: str) -> Iterator[str]:
    """Make the folder for simulated scenes and for the catalogs of folders."""
    if not is_remote(config.catalogs_dir):
        yield config.catalogs_dir
    elif runner.is_local(config.data.beam_options):
        # The place of the scenes does not change what is built. So a pod that takes the
        # place of a killed one goes on with the patches that were cut.
        with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
            yield scratch
    else:
        # Workers on other machines read the catalogs. Jobs of one run may work at once.
        yield f"{config.catalogs_dir}/{node}"
