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

from beam_jobs.build import label_checks
from beam_jobs.build.driver import Execution, build_labels, build_pairs, find_newest
from beam_jobs.build.input_hashes import RECORD_NAME
from beam_jobs.build.spans import SpanWord, number_of
from beam_jobs.build.verify import verify, verify_window
from beam_jobs.catalogs.catalog import CATALOG_NAME, resolve_catalog
from beam_jobs.config import BuildConfig, CatalogConfig
from beam_jobs.contracts import layout, set_aside, windows
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.windows import WindowConfig
from beam_jobs.errors import DataError, NothingNewError
from models.publishing import labels
from pipeline.config import RunConfig

PAIRS = "pairs"
"""Name of the unlabeled data set; no task may have it."""
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
    and `BuiltData.new` is empty: the caller decides what that means. Spans that were
    set aside are put back if `drift.accept_spans` names them.

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
    catalogs = resolve_catalogs(sources(config), config.catalogs_dir, stage, on_progress)
    for data in data_sets(config):
        set_aside.put_back(data.root, config.drift.accept_spans, labels.now())
    # Pairs and labels are built from the same files, so they share one record.
    execution = Execution(
        on_progress=on_progress,
        file_record=f"{config.catalogs_dir}/{RECORD_NAME}",
        verify_files=verify_files,
    )
    versions: dict[str, Location] = {}
    new: list[str] = []
    for data in data_sets(config):
        kind = "build-labels" if data.config.label else "build-pairs"
        with stage(kind if data.name == PAIRS else f"{kind} ({data.name})"):
            versions[data.name], is_new = _build(data, catalogs, execution, config.window, new_span)
        new += [data.name] if is_new else []
        # All builds read the same files, so the first verifies them.
        execution = replace(execution, verify_files=False)
    with_hashes = config.verify_hashes or verify_files
    for data in data_sets(config):
        if config.window is None:
            with stage(f"verify {versions[data.name]}"):
                verify(versions[data.name], with_hashes, on_progress=on_progress)
        else:
            with stage(f"verify the spans of {data.root}"):
                check_window(data, catalogs, config.window, with_hashes, on_progress)
    pairs = versions.pop(PAIRS, None)
    return BuiltData(pairs=pairs, tasks=versions, new=tuple(new))


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set of a run.

    Attributes:
        name: "pairs" or the task's name.
        root: folder that holds its spans.
        config: of its build.
    """

    name: str
    root: str
    config: BuildConfig


def data_sets(config: RunConfig) -> list[DataSet]:
    """Return the data sets of a run: the pairs, if it needs any, and each task's."""
    pairs = DataSet(name=PAIRS, root=config.pairs_dir, config=config.pairs)
    tasks = [
        DataSet(name=task.name, root=config.task_dir(task), config=task.build_config(config.pairs))
        for task in config.tasks
    ]
    return [*([pairs] if config.needs_pairs else []), *tasks]


def newest_versions(config: RunConfig) -> dict[str, str]:
    """Return data set -> "span.version" of its newest version."""
    found = {data.name: layout.list_versions(data.root) for data in data_sets(config)}
    return {name: "{}.{}".format(*max(versions)) for name, versions in found.items() if versions}


def newest_trained(config: RunConfig) -> dict[str, set_aside.Version]:
    """Return data set -> newest version that a run trains on now.

    A data set is left out if it has none. Without a window, a run reads its newest span
    and no other, also if that was set aside.
    """
    found = {}
    for data in data_sets(config):
        out = set_aside.left_out(data.root)
        versions = sorted(layout.list_versions(data.root))[0 if config.window else -1 :]
        usable = [one for one in versions if one not in out]
        if usable:
            found[data.name] = usable[-1]
    return found


def _build(
    data: DataSet,
    catalogs: Sequence[Location],
    execution: Execution,
    window: WindowConfig | None,
    new_span: bool,
) -> tuple[Location, bool]:
    """Return the newest version of a data set, and whether it began a new span."""

    def build_span(span: SpanWord) -> Location:
        how = execution
        if window is not None and number_of(locate(data.root), span) > 1:
            # A month may bring patches of one split only. The window is checked whole.
            how = replace(execution, needed_splits=(), class_splits=())
        return build(data.config, catalogs, data.root, span=span, execution=how)

    build = build_pairs if data.config.label is None else build_labels
    if new_span:
        try:
            return build_span("new"), True
        except NothingNewError:
            # Scenes without a partner or a label change the input, but not the data.
            newest = find_newest(data.config, data.root)
            if newest is not None:
                return newest, False
    return build_span("newest"), False


def check_window(
    data: DataSet,
    catalogs: Sequence[Location],
    window: WindowConfig,
    with_hashes: bool,
    on_progress: OnProgress,
) -> None:
    """Check all versions of a window, and that its classes can be trained and tested.

    Raises:
        DataError: see `verify_window` and `label_checks.check_classes`.
        WindowError: the versions cannot be read together.
    """
    found = verify_window(
        data.root, windows.resolve(data.root, window), with_hashes, on_progress=on_progress
    )
    if data.config.label is not None and found.window:
        num_pixels = {
            (split, int(label_id)): number
            for split, of in found.num_pixels_per_class.items()
            for label_id, number in of.items()
        }
        splits = ("train", "test")
        if label_checks.absent_classes(data.config.label, num_pixels, splits):
            label_checks.check_classes(data.config.label, catalogs, num_pixels, splits)


def sources(config: RunConfig) -> tuple[CatalogConfig, ...]:
    """Return the catalogs of a run, with that of scenes which `retrain` has fetched.

    Raises:
        DataError: there is none, because nothing was fetched yet.
    """
    fetched = Path(config.fetched_dir) / CATALOG_NAME
    if config.earth_engine is None:
        return config.catalogs
    if fetched.exists():
        return (*config.catalogs, CatalogConfig(layout="stac", path=str(fetched)))
    if not config.catalogs:
        raise DataError(
            f"{fetched}: nothing was fetched yet, and the config has no other catalog: "
            f"`terrapair retrain` asks Earth Engine at the places of {config.earth_engine.places}",
            "missing_file",
        )
    return config.catalogs


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
