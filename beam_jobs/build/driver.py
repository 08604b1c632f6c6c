"""One build: from catalogs to a version directory with shards, manifest and rejections.

The Beam pipeline (`graph.py`) writes into a hidden building directory. The driver then
checks the result and writes the manifest and the data card. At last `directory.py`
turns the building directory into the version.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import runner
from beam_jobs.build import (
    choice,
    directory,
    graph,
    input_hashes,
    label_checks,
    spans,
    spool,
    writers,
)
from beam_jobs.catalogs import catalog
from beam_jobs.config import MIN_FOLDS, BuildConfig, LabelConfig
from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason
from beam_jobs.data_card import card, statistics
from beam_jobs.engines import checks, claims, running
from beam_jobs.errors import DataError, NothingNewError
from beam_jobs.judging import holdouts
from beam_jobs.repeating import repeating
from beam_jobs.scenes.products import constellation_of
from beam_jobs.scenes.scene import SENSOR_OF_CONSTELLATION
from beam_jobs.storage import files, locks

OnProgress = Callable[[int, int], None]
StrPath = str | os.PathLike[str]

_LOGGER = logging.getLogger(__name__)
_UNWANTED_REASONS: tuple[Reason, ...] = (
    "other_processing_level",
    "no_label",
    "other_label_schema",
    "weak_label",
    "older_baseline",
    spans.KNOWN_REASON,
)
"""Reasons of scenes that the build does not want, whatever their quality."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a build runs. None of this changes the content of the version.

    Attributes:
        on_progress: called with (tasks cut, at most all; Sentinel-1 scenes in the
            catalogs) while patches are cut.
        spool_root: folder for encoded patches between cutting and sharding; None =
            beside the output. All workers must see it. A build that was killed
            continues only with the same folder.
        beam_options: options of Beam itself, such as `--runner=DataflowRunner`; empty =
            the local runner.
        needed_splits: splits that must get at least one patch. Empty for a span that
            is read together with others.
        class_splits: splits in which every class that a task needs must have pixels. A
            cross-validation pools the test splits of its folds, so not each of them
            needs every class.
        file_record: file of this machine that holds what is known of input files; see
            `input_hashes`. None = beside the output, or nowhere when the output is on
            an object store. Builds of the same files may share it.
        verify_files: read all input files and compare their content. Otherwise a file
            whose size and times are those of the record is believed to be unchanged.
    """

    on_progress: OnProgress | None = None
    spool_root: StrPath | None = None
    beam_options: Sequence[str] = ()
    needed_splits: Sequence[layout.Split] = layout.SPLITS
    class_splits: Sequence[layout.Split] = ("train", "test")
    file_record: StrPath | None = None
    verify_files: bool = False


def build_pairs(
    config: BuildConfig, catalog_paths: Sequence[StrPath], output_root: StrPath, **options: Any
) -> Location:
    """Build a version of unlabeled pairs; see `build` for arguments, result and errors.

    Raises:
        SettingsError: the config has a `label`.
    """
    if config.label is not None:
        raise settings.SettingsError(
            f"build-pairs takes no label, got schema {config.label.schema!r}: use build-labels"
        )
    return build(config, catalog_paths, output_root, **options)


def build_labels(
    config: BuildConfig, catalog_paths: Sequence[StrPath], output_root: StrPath, **options: Any
) -> Location:
    """Build a version of labelled pairs; see `build` for arguments, result and errors.

    Raises:
        SettingsError: the config has no `label`.
    """
    if config.label is None:
        raise settings.SettingsError(
            "build-labels needs the setting 'label': the label schema and the sensor whose "
            "scenes have the labels"
        )
    return build(config, catalog_paths, output_root, **options)


def build(
    config: BuildConfig,
    catalog_paths: Sequence[StrPath],
    output_root: StrPath,
    *,
    span: int | spans.SpanWord = 1,
    version: int | None = None,
    execution: Execution | None = None,
) -> Location:
    """Build one version and return its directory.

    Args:
        config: config of the build.
        catalog_paths: STAC catalogs to read, paths or URIs.
        output_root: folder that holds the spans, path or URI.
        span: number of the data span. "new" begins the next one, and "newest" builds
            the newest one again if its input has changed. Both take only scenes that no
            earlier span used.
        version: number of the version. None returns the newest version of the span if
            it was built from the same config, catalogs and code, and builds the next
            free number otherwise.
        execution: how the build runs; None = all defaults of `Execution`.

    Raises:
        NothingNewError: a new span would have no pair of scenes.
        DataError: the input breaks a rule or changes meanwhile, too many scenes are
            bad, no patch is left, the version exists, or another job is building it.
    """
    execution = execution or Execution()
    output_root = locate(output_root)
    options = runner.pipeline_options(config.shards.num_workers, execution.beam_options)
    # Beam sets these options too, but only when it makes the pipeline. The driver looks
    # at the output before that.
    FileSystems.set_options(options)
    checks.check(options)
    config = _with_hashes(config)
    # Pairs do not change with the labels of their scenes: a label that is drawn again
    # must not cost a pretraining.
    unread = ("label",) if config.label is None else ()
    inputs = _Inputs(
        catalog_paths,
        output_root,
        execution,
        unread,
        # First: labels that do not fit must not cost the hashing of all files.
        num_scenes=_count_scenes(catalog_paths, config.label),
    )
    content_sha256 = inputs.sha256(verify=execution.verify_files)
    while True:
        chosen = choice.choose(config, output_root, content_sha256, span=span, version=version)
        if chosen.is_there:
            return chosen.target
        with locks.hold(
            layout.lock_path(output_root, chosen.span, chosen.version), str(chosen.target)
        ):
            # Another job may have built this number between the look and the lock.
            if chosen == choice.choose(
                config, output_root, content_sha256, span=span, version=version
            ):
                return _build(config, inputs, chosen, execution, options)


def find_newest(config: BuildConfig, output_root: StrPath) -> Location | None:
    """Return the newest version of the newest span; None: it has another config.

    Raises:
        DataError: a file that the config names is missing.
    """
    return choice.find_newest(_with_hashes(config), locate(output_root))


def _with_hashes(config: BuildConfig) -> BuildConfig:
    """Return the config with the hashes of the files that it names."""
    return replace(
        config,
        split=holdouts.with_hashes(config.split),
        label=label_checks.with_hash(config.label) if config.label else None,
    )


@dataclass(frozen=True)
class _Inputs:
    """The catalogs of a build, their scenes, and the record of their files."""

    catalog_paths: Sequence[StrPath]
    output_root: Location
    execution: Execution
    unread: tuple[str, ...]
    num_scenes: Counter[str]

    def sha256(self, verify: bool) -> str:
        """Return the hash of the catalogs and of the content of their files."""
        path = self.execution.file_record
        if path is None and not is_remote(self.output_root):
            path = self.output_root / input_hashes.RECORD_NAME
        with input_hashes.opened(path, believe=not verify) as record:
            return input_hashes.content_sha256(self.catalog_paths, record, self.unread)

    def __str__(self) -> str:
        return ", ".join(str(path) for path in self.catalog_paths)


def _build(
    config: BuildConfig,
    inputs: _Inputs,
    chosen: choice.Chosen,
    execution: Execution,
    options: PipelineOptions,
) -> Location:
    """Build the chosen version, whose lock this job holds."""
    if config.label is not None:
        label_checks.check_vectors(config.label, inputs.catalog_paths)
    building_dir = str(layout.building_dir(chosen.output_root, chosen.span, chosen.version))
    running.stop_last(building_dir)
    directory.prepare(building_dir, chosen.made_from.marker)
    spool_dir = directory.spool_dir(
        building_dir,
        execution.spool_root,
        target=chosen.target,
        marker=chosen.made_from.marker,
    )
    # Machines whose outputs have one path may share a folder that the user names.
    spool_lock = (
        locks.hold(f"{spool_dir}.lock", spool_dir)
        if execution.spool_root is not None
        else nullcontext()
    )
    claim = running.take(building_dir, options)
    with spool_lock:
        with (
            _reported(spool_dir, inputs.num_scenes["sentinel-1"], execution.on_progress),
            running.pipeline(options, claim) as pipeline,
        ):
            graph.expand(
                pipeline,
                config,
                catalog_paths=inputs.catalog_paths,
                claim=claim,
                spool_dir=spool_dir,
                earlier=chosen.earlier,
            )
        summary = _read_summary(building_dir)
        _check_scenes(summary, config, inputs.num_scenes.total())
        _check_patches(
            summary,
            str(inputs),
            num_scenes=inputs.num_scenes.total(),
            needed_splits=execution.needed_splits,
            num_folds=config.split.folds,
            is_new_span=chosen.is_new_span,
        )
        found = _manifest(
            summary, config, chosen.made_from, span=chosen.span, version=chosen.version
        )
        if config.label is not None:
            label_checks.check_unchanged(config.label)
            # Before the classes: of few labels, some class often reaches no train.
            if "train" in execution.needed_splits:
                label_checks.warn_of_few(inputs.catalog_paths, found, summary.contents)
            label_checks.check_classes(
                config.label,
                inputs.catalog_paths,
                summary.num_pixels_per_class,
                set(execution.needed_splits) & set(execution.class_splits),
            )
        if inputs.sha256(verify=False) != chosen.content_sha256:
            raise DataError(
                f"{inputs}: a file of the catalog has changed while the build read it; run the "
                "build again when nothing writes there",
                "input_changed",
            )
        claims.drop(building_dir)
        directory.delete_leftovers(building_dir, summary.shards)
        card.write(building_dir, found, summary.contents)
        files.write_bytes(f"{building_dir}/{layout.MANIFEST_NAME}", found.to_json().encode())
        directory.publish(building_dir, chosen.target)
        files.delete_tree(spool_dir)
    return chosen.target


def _count_scenes(catalog_paths: Sequence[StrPath], label: LabelConfig | None) -> Counter[str]:
    """Return the number of items per constellation.

    The label schemas are checked here, before any pixel is read.

    Raises:
        DataError: the catalogs refuse every scene, or no label of the wanted sensor can
            be remapped to the wanted schema. The message names the most frequent
            schema.
    """
    catalog.check_usable(catalog_paths)
    num_scenes: Counter[str] = Counter()
    schemas: Counter[str] = Counter()
    for item in (item for path in catalog_paths for item in catalog.read_items(path)):
        constellation = constellation_of(item.get("properties") or {})
        num_scenes[constellation] += 1
        asset = (item.get("assets") or {}).get("label") or {}
        if (
            label is not None
            and SENSOR_OF_CONSTELLATION.get(constellation) == label.label_from
            and asset
        ):
            schemas[str(asset.get("terrapair:label_schema", ""))] += 1
    # A vector file of the config replaces the labels of the items.
    if label is None or label.vector is not None:
        return num_scenes
    target = label.target
    reasons = {name: target.why_not(name) for name in schemas}
    if reasons and all(reasons.values()):
        ((most, _),) = schemas.most_common(1)
        where = ", ".join(str(path) for path in catalog_paths)
        raise DataError(
            f"{where}: {reasons[most]} "
            f"(labels of {label.label_from} are {', '.join(sorted(reasons))})",
            "other_label_schema",
        )
    return num_scenes


def _read_summary(building_dir: str) -> writers.Summary:
    if not files.exists(f"{building_dir}/{writers.SUMMARY_NAME}"):
        raise DataError(
            "the runner accepted the job but did not run it, as for a template or a dry run: "
            "no version was built",
            "not_run",
        )
    return writers.read_summary(building_dir)


def _check_scenes(summary: writers.Summary, config: BuildConfig, num_scenes: int) -> None:
    """Refuse a build of which too many scenes are bad.

    Raises:
        DataError: the share of bad scenes exceeds `quality.max_rejected_fraction`. The
            message holds the first error.
    """
    # Scenes that this build does not want at all must not dilute the share of bad ones.
    num_wanted = num_scenes - sum(summary.num_rejected[reason] for reason in _UNWANTED_REASONS)
    if summary.num_bad_scenes > config.quality.max_rejected_fraction * num_wanted:
        raise DataError(
            f"{summary.first_error} ({summary.num_bad_scenes} of {num_wanted} scenes are bad; "
            f"max_rejected_fraction is {config.quality.max_rejected_fraction:g})",
            "too_many_bad_scenes",
        )


def _check_patches(
    summary: writers.Summary,
    where: str,
    *,
    num_scenes: int,
    needed_splits: Sequence[str],
    num_folds: int,
    is_new_span: bool,
) -> None:
    """Refuse a build without any patch, or without a patch in a needed split.

    Raises:
        NothingNewError: a new span has no pair of scenes.
        DataError: such a split. The message holds the reasons of what is not used.
    """
    reasons = (
        ", ".join(f"{reason} {count}" for reason, count in sorted(summary.num_rejected.items()))
        or "none"
    )
    counts = _num_examples(summary)
    # Scenes that found no partner are in no span, so they are tried again.
    if is_new_span and not summary.num_pairs:
        what = "every scene is in an earlier span already"
        if summary.num_rejected[spans.KNOWN_REASON] < num_scenes:
            what = f"no pair of scenes is new (not used: {reasons})"
        raise NothingNewError(f"{where}: {what}", "nothing_new")
    if not summary.shards:
        outside = ""
        if num_folds and summary.num_rejected["outside_folds"]:
            outside = (
                "; folds take neither hold-outs nor scenes whose terrapair:split is test: set "
                "split.folds to 0, or remove the hold-outs or that property"
            )
        raise DataError(
            f"{where}: no pair of scenes gave a patch (not used: {reasons}){outside}", "no_pair"
        )
    fewer = f"fewer split.folds than {num_folds}, " if num_folds > MIN_FOLDS else ""
    for split in needed_splits:
        if not counts[split]:
            raise DataError(
                f"{where}: no patch falls into split {split!r} ({dict(counts)}; "
                f"not used: {reasons}); use {fewer}a smaller split.block_size_km, another "
                "split.seed or more data",
                "empty_split",
            )


def _num_examples(summary: writers.Summary) -> Counter[str]:
    counts: Counter[str] = Counter()
    for name, entry in summary.shards.items():
        counts[name.split("/")[0]] += entry.num_examples
    return counts


def _manifest(
    summary: writers.Summary,
    config: BuildConfig,
    made_from: choice.MadeFrom,
    *,
    span: int,
    version: int,
) -> manifest.Manifest:
    per_class: dict[str, dict[str, int]] = {}
    for (split, label_id), count in sorted(summary.num_pixels_per_class.items()):
        if count:
            per_class.setdefault(split, {})[str(label_id)] = count
    return manifest.Manifest(
        kind="pairs" if config.label is None else "labels",
        span=span,
        version=version,
        patch_size_px=config.patch.size_px,
        pixel_size_m=config.patch.pixel_size_m,
        s1_bands=config.patch.s1_bands,
        s2_bands=config.patch.s2_bands,
        s2_processing_level=config.patch.s2_processing_level,
        label_schema=config.label.schema if config.label else None,
        label_classes=config.label.label_schema.entries if config.label else (),
        num_examples=dict(sorted(_num_examples(summary).items())),
        num_pixels_per_class=per_class,
        num_rejected=dict(sorted(summary.num_rejected.items())),
        num_held_out=_nested(summary.contents.num_held_out),
        num_absent=_nested(summary.contents.num_absent),
        num_out_of_range=_nested(summary.num_out_of_range),
        sources=tuple(
            manifest.SourceEntry(
                sensor=origin.sensor,
                source=origin.source,
                license=origin.license,
                num_pairs=count,
            )
            for origin, count in sorted(summary.num_pairs.items())
        ),
        shards=dict(sorted(summary.shards.items())),
        s1_statistics=_statistics(summary, "s1", config.patch.s1_bands),
        s2_statistics=_statistics(summary, "s2", config.patch.s2_bands),
        config=choice.content_config(config),
        config_sha256=made_from.config_sha256,
        source_sha256=made_from.source_sha256,
        code_sha256=made_from.code_sha256,
        code_version=manifest.CODE_VERSION,
    )


def _statistics(
    summary: writers.Summary, sensor: Sensor, bands: tuple[str, ...]
) -> tuple[manifest.BandStatistics, ...]:
    # No train patch has a scene of this sensor: there are no statistics. In all other
    # cases a band without a valid pixel is an error.
    if summary.contents.num_absent[sensor, "train"] == _num_examples(summary)["train"]:
        return statistics.of_nothing(sensor, bands)
    if sensor not in summary.band_sums:
        raise ValueError(f"a build with train patches must have sums of {sensor}, got none")
    return statistics.band_statistics(summary.band_sums[sensor], sensor, bands)


def _nested(counts: Mapping[tuple[Any, str], int]) -> dict[str, dict[str, int]]:
    """Return counts by (name, split or band) as name -> that -> count, sorted."""
    found: dict[str, dict[str, int]] = {}
    for (what, of), count in sorted(counts.items()):
        found.setdefault(what, {})[of] = count
    return found


@contextmanager
def _reported(spool_dir: str, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Call `on_progress` at intervals with the number of finished tasks in the spool.

    The spool is asked because workers may be other processes.
    """
    if on_progress is None:
        yield
        return

    def look() -> None:
        # A large scene may have several tasks, so there may be more tasks than scenes.
        on_progress(min(spool.count_finished(spool_dir), total), total)

    # An object store is asked less often, because each look lists the folder.
    with repeating(look, 10.0 if is_remote(spool_dir) else 0.5):
        yield
    on_progress(total, total)
