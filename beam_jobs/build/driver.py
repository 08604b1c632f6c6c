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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems

from beam_jobs import runner
from beam_jobs.build import directory, graph, spans, spool, writers
from beam_jobs.catalogs import catalog
from beam_jobs.config import BuildConfig, LabelConfig
from beam_jobs.contracts import labels, layout, manifest, settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason
from beam_jobs.data_card import card, statistics
from beam_jobs.errors import DataError, NothingNewError
from beam_jobs.judging import holdouts
from beam_jobs.repeating import repeating
from beam_jobs.scenes.scene import SENSOR_OF_CONSTELLATION, constellation_of
from beam_jobs.storage import files

OnProgress = Callable[[int, int], None]
StrPath = str | os.PathLike[str]

_LOGGER = logging.getLogger(__name__)
_UNWANTED_REASONS: tuple[Reason, ...] = (
    "other_processing_level",
    "no_label",
    "other_label_schema",
    "weak_label",
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
        needed_splits: splits that must get at least one patch. "train" must be among
            them, because the statistics come from it.
    """

    on_progress: OnProgress | None = None
    spool_root: StrPath | None = None
    beam_options: Sequence[str] = ()
    needed_splits: Sequence[layout.Split] = layout.SPLITS


@dataclass(frozen=True, kw_only=True)
class _MadeFrom:
    """Hashes of what a version is made from. Equal hashes give an equal version.

    Attributes:
        config_sha256: hash of the config.
        source_sha256: hash of the catalogs, the sizes of their files, and earlier
            spans.
        code_sha256: hash of the code.
    """

    config_sha256: str
    source_sha256: str
    code_sha256: str

    @property
    def marker(self) -> str:
        """The three hashes in one line."""
        return f"{self.config_sha256} {self.source_sha256} {self.code_sha256}"


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
    span: int | None = 1,
    version: int | None = None,
    execution: Execution | None = None,
) -> Location:
    """Build one version and return its directory.

    Args:
        config: config of the build.
        catalog_paths: STAC catalogs to read, paths or URIs.
        output_root: folder that holds the spans, path or URI.
        span: number of the data span. None begins the next span, which takes only
            scenes that no earlier span used.
        version: number of the version. None returns the newest version of the span if
            it was built from the same config, catalogs and code, and builds the next
            free number otherwise.
        execution: how the build runs; None = all defaults of `Execution`.

    Raises:
        DataError: the input breaks a rule, too many scenes are bad, no patch is left,
            or the version exists.
    """
    execution = execution or Execution()
    output_root = locate(output_root)
    options = runner.pipeline_options(config.shards.num_workers, execution.beam_options)
    # Beam sets these options too, but only when it makes the pipeline. The driver looks
    # at the output before that.
    FileSystems.set_options(options)
    config = replace(config, split=holdouts.with_hashes(config.split))
    earlier: list[Location] = []
    if span is None:
        span, earlier = spans.next_span(output_root), spans.earlier_scene_files(output_root)
    made_from = _made_from(config, catalog_paths, earlier)
    if version is None:
        version, is_there = _next_version(output_root, span, made_from)
        if is_there:
            return layout.version_dir(output_root, span, version)
    target = layout.version_dir(output_root, span, version)
    if directory.is_taken(target):
        raise DataError(
            f"{target}: the version exists and is never overwritten; choose another number",
            "version_exists",
        )
    num_scenes = _count_scenes(catalog_paths, config.label)
    building_dir = str(layout.building_dir(output_root, span, version))
    directory.prepare(building_dir, made_from.marker)
    spool_dir = directory.spool_dir(
        building_dir, execution.spool_root, target=target, marker=made_from.marker
    )
    with (
        _reported(spool_dir, num_scenes["sentinel-1"], execution.on_progress),
        beam.Pipeline(options=options) as pipeline,
    ):
        graph.expand(
            pipeline,
            config,
            catalog_paths=catalog_paths,
            building_dir=building_dir,
            spool_dir=spool_dir,
            earlier=earlier,
        )
    summary = _read_summary(building_dir)
    where = ", ".join(str(path) for path in catalog_paths)
    _check_scenes(summary, config, num_scenes.total())
    _check_patches(
        summary, where, num_scenes=num_scenes.total(), needed_splits=execution.needed_splits
    )
    found = _manifest(summary, config, made_from, span=span, version=version)
    card.write(building_dir, found, summary.contents)
    files.write_bytes(f"{building_dir}/{layout.MANIFEST_NAME}", found.to_json().encode())
    directory.publish(building_dir, target)
    files.delete_tree(spool_dir)
    return target


def _next_version(output_root: Location, span: int, made_from: _MadeFrom) -> tuple[int, bool]:
    """Return the number of a version, and whether that version exists already.

    It exists when the newest version of the span was made from the same things.
    """
    existing = [version for other, version in layout.list_versions(output_root) if other == span]
    if not existing:
        return 1, False
    # On an object store, a job that was killed after it had moved the manifest leaves
    # its building directory behind.
    files.delete_tree(str(layout.building_dir(output_root, span, existing[-1])))
    newest = layout.version_dir(output_root, span, existing[-1])
    if _read_made_from(newest) == made_from:
        _LOGGER.info("%s was built from the same config, catalogs and code; nothing to do", newest)
        return existing[-1], True
    return existing[-1] + 1, False


def _read_made_from(version_path: Location) -> _MadeFrom | None:
    """Return the hashes of a version; None if its manifest has another format."""
    try:
        found = manifest.read(version_path)
    except manifest.FormatError:
        return None
    return _MadeFrom(
        config_sha256=found.config_sha256,
        source_sha256=found.source_sha256,
        code_sha256=found.code_sha256,
    )


def _made_from(
    config: BuildConfig, catalog_paths: Sequence[StrPath], earlier: Sequence[Location]
) -> _MadeFrom:
    """Return the hashes of what a version will be made from."""
    source_sha256 = catalog.content_sha256(catalog_paths)
    if earlier:
        source_sha256 = settings.sha256([source_sha256, spans.scene_files_sha256(earlier)])
    return _MadeFrom(
        config_sha256=settings.sha256(_content_config(config)),
        source_sha256=source_sha256,
        code_sha256=source_fingerprint(("beam_jobs",)),
    )


def _content_config(config: BuildConfig) -> dict[str, Any]:
    """Return the config without settings that do not change the output."""
    # The number of workers changes no byte of a version.
    values: dict[str, Any] = settings.to_dict(config)
    del values["shards"]["num_workers"]
    return values


def _count_scenes(catalog_paths: Sequence[StrPath], label: LabelConfig | None) -> Counter[str]:
    """Return the number of items per constellation.

    The label schemas are checked here, before any pixel is read.

    Raises:
        DataError: no label of the wanted sensor can be remapped to the wanted schema.
            The message names the most frequent schema.
    """
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
    reasons = (
        {name: labels.why_no_remap(name, label.schema) for name in schemas}
        if label is not None
        else {}
    )
    if label is not None and reasons and all(reasons.values()):
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
    summary: writers.Summary, where: str, *, num_scenes: int, needed_splits: Sequence[str]
) -> None:
    """Refuse a build without any patch, or without a patch in a needed split.

    Raises:
        NothingNewError: earlier spans hold all scenes.
        DataError: such a split. The message holds the reasons of what is not used.
    """
    reasons = (
        ", ".join(f"{reason} {count}" for reason, count in sorted(summary.num_rejected.items()))
        or "none"
    )
    counts = _num_examples(summary)
    if not summary.shards and summary.num_rejected[spans.KNOWN_REASON] >= num_scenes > 0:
        raise NothingNewError(f"{where}: every scene is in an earlier span already", "nothing_new")
    if not summary.shards:
        raise DataError(f"{where}: no pair of scenes gave a patch (not used: {reasons})", "no_pair")
    for split in needed_splits:
        if not counts[split]:
            raise DataError(
                f"{where}: no patch falls into split {split!r} ({dict(counts)}; "
                f"not used: {reasons}); use a smaller split.block_size_km, another split.seed "
                "or more data",
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
    made_from: _MadeFrom,
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
        config=_content_config(config),
        config_sha256=made_from.config_sha256,
        source_sha256=made_from.source_sha256,
        code_sha256=made_from.code_sha256,
        code_version=manifest.CODE_VERSION,
    )


def _statistics(
    summary: writers.Summary, sensor: Sensor, bands: tuple[str, ...]
) -> tuple[manifest.BandStatistics, ...]:
    if sensor not in summary.band_sums:
        raise ValueError(f"a build with train patches must have sums of {sensor}, got none")
    # No train patch has a scene of this sensor: there are no statistics. In all other
    # cases a band without a valid pixel is an error.
    if summary.contents.num_absent[sensor, "train"] == _num_examples(summary)["train"]:
        return statistics.of_nothing(sensor, bands)
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
        # A large scene has several strips, so there may be more tasks than scenes.
        on_progress(min(spool.count_finished(spool_dir), total), total)

    # An object store is asked less often, because each look lists the folder.
    with repeating(look, 10.0 if is_remote(spool_dir) else 0.5):
        yield
    on_progress(total, total)
