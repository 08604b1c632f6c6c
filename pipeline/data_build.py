"""The data part of a run: catalogs -> pairs -> labels of each task, as versions that ExampleGen can read.

RunConfig -> version directories with manifests. Called by `pipeline/__main__.py` before the TFX pipeline; what exists
unchanged is reused by the jobs themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from beam_jobs.build_labels import build_labels
from beam_jobs.build_pairs import build_pairs
from beam_jobs.catalogs import resolve_catalog
from beam_jobs.verify import verify
from pipeline.config import RunConfig

Stage = Callable[[str], AbstractContextManager[None]]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class BuiltData:
    """Version directories: of the pairs, and of each task by name."""

    pairs: Path
    tasks: dict[str, Path]


def build_data(config: RunConfig, stage: Stage, on_progress: OnProgress) -> BuiltData:
    """Builds what is missing, then checks that all shards are whole: a version may lie there for months.

    Args:
        config: the run; its root must be a local folder.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Raises:
        beam_jobs.errors.DataError: bad input, a split that would be empty, or a shard that is cut short.
    """
    catalogs = []
    for i, catalog in enumerate(config.catalogs):
        with stage(f"catalog {i + 1}/{len(config.catalogs)} ({catalog.layout})"):
            # A folder each: two sources of one layout must not overwrite each other's catalog.
            catalogs.append(resolve_catalog(catalog, Path(config.catalogs_dir) / str(i), on_progress))
    with stage("build-pairs"):
        pairs = build_pairs(config.pairs, catalogs, Path(config.pairs_dir), on_progress=on_progress)
    tasks = {}
    for task in config.tasks:
        with stage(f"build-labels ({task.name})"):
            tasks[task.name] = build_labels(
                task.build_config(config.pairs), catalogs, Path(config.task_dir(task)), on_progress=on_progress
            )
    for version in (pairs, *tasks.values()):
        with stage(f"verify {version}"):
            verify(version, config.verify_hashes, on_progress)
    return BuiltData(pairs=pairs, tasks=tasks)
