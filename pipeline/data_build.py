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
from typing import Literal

from beam_jobs import runner
from beam_jobs.build import label_checks
from beam_jobs.build.driver import Execution, build_labels, build_pairs, find_newest
from beam_jobs.build.input_hashes import RECORD_NAME
from beam_jobs.build.spans import SpanWord, number_of
from beam_jobs.build.verify import verify, verify_window
from beam_jobs.catalogs.catalog import CATALOG_NAME, resolve_catalog
from beam_jobs.config import BuildConfig, CatalogConfig
from beam_jobs.contracts import layout, set_aside, settings, windows
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.windows import WindowConfig
from beam_jobs.errors import DataError, NothingNewError
from beam_jobs.terminal import inputs
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
    # Wrong options of Beam must not cost a simulation.
    check_beam_options(config)
    catalogs = resolve_catalogs(sources(config), config.catalogs_dir, stage, on_progress)
    for data in data_sets(config):
        set_aside.put_back(data.root, config.drift.accept_spans, labels.now())
    # Pairs and labels are built from the same files, so they share one record.
    execution = execution_of(config, config.catalogs_dir, on_progress, verify_files=verify_files)
    versions: dict[str, Location] = {}
    new: list[str] = []
    for data in data_sets(config):
        with stage(data.kind if data.name == PAIRS else f"{data.kind} ({data.name})"):
            versions[data.name], is_new = _build(data, catalogs, execution, config.window, new_span)
        new += [data.name] if is_new else []
        # All builds read the same files, so the first verifies them.
        execution = replace(execution, verify_files=False)
    with_hashes = config.verify_hashes or verify_files
    for data in data_sets(config):
        with stage(f"verify {data.name}"):
            _verify(config, data, versions[data.name], catalogs, with_hashes, on_progress)
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

    @property
    def kind(self) -> Literal["build-pairs", "build-labels"]:
        """The verb that builds it alone."""
        return "build-pairs" if self.config.label is None else "build-labels"

    @property
    def job(self) -> str:
        """Node of a run that builds it: build-pairs, or build-labels-flood."""
        return self.kind if self.name == PAIRS else f"{self.kind}-{self.name}"


def data_sets(config: RunConfig) -> list[DataSet]:
    """Return the data sets of a run: the pairs, if it needs any, and each task's."""
    pairs = DataSet(name=PAIRS, root=config.pairs_dir, config=config.pairs)
    tasks = [
        DataSet(name=task.name, root=config.task_dir(task), config=task.build_config(config.pairs))
        for task in config.tasks
    ]
    return [*([pairs] if config.needs_pairs else []), *tasks]


def build_data_set(
    config: RunConfig, data: DataSet, work_dir: str, stage: Stage, on_progress: OnProgress
) -> tuple[int, int]:
    """Build one data set of a run if needed, and check what the run reads of it.

    Several processes may build the data sets of one run at the same time. A build that
    was killed goes on where it was.

    Args:
        config: the run; `config.data` says how and for which span.
        data: one of its data sets.
        work_dir: folder for simulated scenes and for the catalogs of folders, of this
            process alone; a path, or a URI for workers on other machines.
        stage: context manager around each named stage.
        on_progress: called with (done, total) within a stage.

    Returns:
        Span and version of the newest version.

    Raises:
        SettingsError: options of Beam are wrong, or workers on other machines cannot
            read the scenes.
        DataError: see `build_data`; or a catalog or folder is missing.
    """
    check_beam_options(config)
    for source in config.catalogs:
        inputs.check_source(source)
    set_aside.put_back(data.root, config.drift.accept_spans, labels.now())
    catalogs = resolve_catalogs(sources(config), work_dir, stage, on_progress)
    execution = execution_of(config, work_dir, on_progress)
    with stage(data.job):
        version, _ = _build(data, catalogs, execution, config.window, config.data.new_span)
    with stage(f"verify {data.name}"):
        _verify(config, data, version, catalogs, config.verify_hashes, on_progress)
    return layout.list_versions(data.root)[-1]


def execution_of(
    config: RunConfig, work_dir: str, on_progress: OnProgress, *, verify_files: bool = False
) -> Execution:
    """Return how the builds of a run are done; arguments as for `build_data_set`."""
    return Execution(
        on_progress=on_progress,
        spool_root=config.data.spool or None,
        beam_options=config.data.beam_options,
        # SQLite needs a disk.
        file_record=None if is_remote(work_dir) else f"{work_dir}/{RECORD_NAME}",
        verify_files=verify_files,
    )


def check_beam_options(config: RunConfig) -> None:
    """Refuse options of Beam that no job can have; scenes that its workers do not see.

    Raises:
        SettingsError: the message names the setting.
    """
    try:
        runner.pipeline_options(1, config.data.beam_options)
    except settings.SettingsError as error:
        raise settings.SettingsError(f"data.beam_options: {error}") from error
    for i, source in enumerate(config.catalogs):
        is_hidden = source.layout == "simulated" and is_remote(config.root)
        if is_hidden and not runner.is_local(config.data.beam_options):
            raise settings.SettingsError(
                f"catalogs[{i}]: simulated scenes are on the disk of the job, where workers of "
                "another runner cannot read them: copy scenes of `terrapair simulate` to a store, "
                "or remove data.beam_options"
            )


def _verify(
    config: RunConfig,
    data: DataSet,
    version: Location,
    catalogs: Sequence[Location],
    with_hashes: bool,
    on_progress: OnProgress,
) -> None:
    """Check the shards that a run reads of a data set: of a version, or of its window.

    Raises:
        DataError: a shard is missing or changed; or see `check_window`.
    """
    if config.window is None:
        verify(version, with_hashes, on_progress=on_progress)
    else:
        check_window(data, catalogs, config.window, with_hashes, on_progress)


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
        work_dir: folder for simulated scenes and for the catalogs of folders; a URI
            without simulated scenes only.
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
            catalogs.append(resolve_catalog(source, f"{work_dir}/{i}", on_progress))
    return catalogs
