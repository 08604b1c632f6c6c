"""The data part of a run: catalogs -> pairs -> labels of each task.

RunConfig -> version directories with manifests, which ExampleGen can read. Pairs are
built only for pretraining and distillation. The jobs reuse versions that exist and are
unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from beam_jobs.build.driver import Execution, build_labels, build_pairs
from beam_jobs.build.input_hashes import RECORD_NAME
from beam_jobs.build.verify import verify
from beam_jobs.catalogs.catalog import resolve_catalog
from beam_jobs.config import CatalogConfig
from beam_jobs.contracts.locations import Location
from pipeline.config import RunConfig

Stage = Callable[[str], AbstractContextManager[None]]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class BuiltData:
    """The version directories of a run.

    Attributes:
        pairs: newest version of the pairs; None: the run needs none.
        tasks: task -> newest version of its labelled patches.
        new: "pairs" and the names of tasks that got a new span, in the order in which
            they were built. Empty without `new_span`, and when nothing was new.
    """

    pairs: Location | None
    tasks: dict[str, Location]
    new: tuple[str, ...] = ()


def build_data(
    config: RunConfig,
    stage: Stage,
    on_progress: OnProgress,
    *,
    verify_files: bool = False,
    new_span: bool = False,
) -> BuiltData:
    """Build what is missing, then check that all shards are complete.

    Versions may be months old, so their shards are checked in every run. A data set
    without new scenes keeps its newest span. If no data set has any, nothing is built
    and `BuiltData.new` is empty: the caller decides what that means.

    Args:
        config: the run; `local_root` names a local folder when its root is on an object
            store.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.
        verify_files: compare the content of all input files and of all shards.
            Otherwise files whose size and times are as before are believed.
        new_span: begin a new span of each data set, of the scenes that no earlier span
            used. False = build the newest span again if its input has changed.

    Raises:
        DataError: bad input, a split that would be empty, or a shard that is cut short.
    """
    catalogs = resolve_catalogs(config.catalogs, config.catalogs_dir, stage, on_progress)
    # Pairs and labels are built from the same files, so they share one record.
    execution = Execution(
        on_progress=on_progress,
        file_record=f"{config.catalogs_dir}/{RECORD_NAME}",
        verify_files=verify_files,
    )
    # All builds read the same files, so the first verifies them.
    read_once = replace(execution, verify_files=False)
    pairs = None
    if config.needs_pairs:
        with stage("build-pairs"):
            pairs = build_pairs(config.pairs, catalogs, config.pairs_dir, execution=execution)
        execution = read_once
    tasks = {}
    for task in config.tasks:
        with stage(f"build-labels ({task.name})"):
            tasks[task.name] = build_labels(
                task.build_config(config.pairs),
                catalogs,
                config.task_dir(task),
                execution=execution,
            )
        execution = read_once
    for version in (*([pairs] if pairs is not None else []), *tasks.values()):
        with stage(f"verify {version}"):
            verify(version, config.verify_hashes or verify_files, on_progress=on_progress)
    return BuiltData(pairs=pairs, tasks=tasks)


def resolve_catalogs(
    sources: Sequence[CatalogConfig], work_dir: str, stage: Stage, on_progress: OnProgress
) -> list[Location]:
    """Return the catalog file of each source.

    Args:
        sources: catalogs, folders of scenes, or settings of the simulator.
        work_dir: folder for simulated scenes and for the catalogs of folders.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Raises:
        DataError: a source holds no scene that can be read.
    """
    catalogs = []
    for i, source in enumerate(sources):
        with stage(f"catalog {i + 1}/{len(sources)} ({source.layout})"):
            # Each source has its own folder, so two of one layout do not overwrite each
            # other's catalog.
            catalogs.append(resolve_catalog(source, Path(work_dir) / str(i), on_progress))
    return catalogs
