"""One build: catalogs -> a version directory with shards, manifest and rejected records.

`build_pairs.py` and `build_labels.py` call it. The Beam pipeline of `build_graph.py`
writes into a hidden building directory; the driver checks what came of it, writes
manifest and data card, and `building.py` turns the directory into the version.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
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


def build_pairs(
    config: BuildConfig, catalog_paths: Sequence[StrPath], output_root: StrPath, **options: Any
) -> Location:
    """Builds a version of unlabeled pairs; arguments, result and errors are those of `build.build`.

    Raises:
        ValueError: the config names a label.
    """
    if config.label is not None:
        raise settings.SettingsError(
            f"build-pairs takes no label, got one of schema {config.label.schema!r}: use build-labels"
        )
    return build(config, catalog_paths, output_root, **options)


def build_labels(
    config: BuildConfig, catalog_paths: Sequence[StrPath], output_root: StrPath, **options: Any
) -> Location:
    """Builds a version of labelled pairs; arguments, result and errors are those of `build.build`.

    Raises:
        ValueError: the config names no label.
    """
    if config.label is None:
        raise settings.SettingsError(
            "build-labels needs the setting label: which schema, and from which sensor's scene"
        )
    return build(config, catalog_paths, output_root, **options)


def build(
    config: BuildConfig,
    catalog_paths: Sequence[StrPath],
    output_root: StrPath,
    *,
    span: int | None = 1,
    version: int | None = None,
    on_progress: OnProgress | None = None,
    spool_root: StrPath | None = None,
    beam_options: Sequence[str] = (),
    needed_splits: Sequence[str] = layout.SPLITS,
) -> Location:
    """Builds one version and returns its directory.

    Args:
        config: of the build.
        catalog_paths: STAC catalogs to read.
        output_root: folder that holds the spans; path or URI, as the catalogs.
        span: number of the data span; None begins the next one, which takes only scenes
            that no earlier span was cut from.
        version: number to build; None takes the newest version of the span when it was
            built from the same config, catalogs and code, and the next free number
            otherwise.
        on_progress: called with (strips cut, at most all; Sentinel-1 scenes in the
            catalogs) while patches are cut.
        spool_root: folder for encoded patches between cutting and sharding; None =
            beside the output. All workers must see it, and a killed job resumes only
            with the same one.
        beam_options: of Beam's own, such as `--runner=DataflowRunner`; none means the
            local runner.
        needed_splits: those that must get a patch; "train", of which the statistics
            are, among them.

    Raises:
        DataError: input breaks a rule, too many scenes are bad, nothing is left, or the
            version exists.
    """
    output_root = locate(output_root)
    options = runner.pipeline_options(config.shards.num_workers, beam_options)
    # Beam does so too, but later: the driver looks at the output before there is a
    # pipeline.
    FileSystems.set_options(options)
    config = replace(config, split=holdouts.with_hashes(config.split))
    earlier: list[Location] = []
    if span is None:
        span, earlier = spans.next_span(output_root), spans.earlier_scene_files(output_root)
    hashes = _hashes(config, catalog_paths, earlier)
    if version is None:
        version, is_there = _next_version(output_root, span, hashes)
        if is_there:
            return layout.version_dir(output_root, span, version)
    target = layout.version_dir(output_root, span, version)
    if directory.is_taken(target):
        raise DataError(
            f"{target}: exists already, and a version is never overwritten", "version_exists"
        )
    num_scenes = _count_scenes(catalog_paths, config.label)
    marker = " ".join(hashes)
    building_dir = str(layout.building_dir(output_root, span, version))
    directory.prepare(building_dir, marker)
    spool_dir = directory.spool_dir(building_dir, spool_root, target, marker)
    with (
        _reported(spool_dir, num_scenes["sentinel-1"], on_progress),
        beam.Pipeline(options=options) as pipeline,
    ):
        graph.expand(pipeline, config, catalog_paths, building_dir, spool_dir, earlier)
    summary = _read_summary(building_dir)
    _check(summary, config, catalog_paths, num_scenes.total(), needed_splits)
    found = _manifest(summary, config, (span, version), hashes)
    card.write(building_dir, found, summary.contents)
    files.write_bytes(f"{building_dir}/{layout.MANIFEST_NAME}", found.to_json().encode())
    directory.publish(building_dir, target)
    files.delete_tree(spool_dir)
    return target


def _next_version(
    output_root: Location, span: int, hashes: tuple[str, str, str]
) -> tuple[int, bool]:
    """The version to build, or the newest one and True when it was built from the same."""
    existing = [version for other, version in layout.list_versions(output_root) if other == span]
    if not existing:
        return 1, False
    # What a job left on a store that was killed after its manifest was moved.
    files.delete_tree(str(layout.building_dir(output_root, span, existing[-1])))
    newest = layout.version_dir(output_root, span, existing[-1])
    if _built_from(newest) == hashes:
        _LOGGER.info("%s was built from the same config, catalogs and code; nothing to do", newest)
        return existing[-1], True
    return existing[-1] + 1, False


def _built_from(version_path: Location) -> tuple[str, str, str] | None:
    """Hashes of the config, catalogs and code of a version; None when it is of a format that is no longer read."""
    try:
        found = manifest.read(version_path)
    except manifest.FormatError:
        return None
    return found.config_sha256, found.source_sha256, found.code_sha256


def _hashes(
    config: BuildConfig, catalog_paths: Sequence[StrPath], earlier: Sequence[Location]
) -> tuple[str, str, str]:
    """(config, source, code): what a version is made from."""
    source_sha256 = catalog.content_sha256(catalog_paths)
    if earlier:
        source_sha256 = settings.sha256([source_sha256, spans.scene_files_sha256(earlier)])
    return (
        settings.sha256(_what_decides_content(config)),
        source_sha256,
        source_fingerprint(("beam_jobs",)),
    )


def _what_decides_content(config: BuildConfig) -> dict[str, Any]:
    """The config without what changes no byte of the output: the number of workers."""
    values: dict[str, Any] = settings.to_dict(config)
    del values["shards"]["num_workers"]
    return values


def _count_scenes(catalog_paths: Sequence[StrPath], label: LabelConfig | None) -> Counter[str]:
    """Number of items per constellation; labels that are all of other schemas are refused before a pixel is read.

    Raises:
        DataError: no label of the wanted sensor can be remapped; with the schema of the
            most scenes.
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
            f"{where}: {reasons[most]} (labels of {label.label_from} are {', '.join(sorted(reasons))})",
            "other_label_schema",
        )
    return num_scenes


def _read_summary(building_dir: str) -> writers.Summary:
    if not files.exists(f"{building_dir}/{writers.SUMMARY_NAME}"):
        raise DataError(
            "the runner took the job and ran nothing, as for a template or dry run: no version",
            "not_run",
        )
    return writers.read_summary(building_dir)


def _check(
    summary: writers.Summary,
    config: BuildConfig,
    catalog_paths: Sequence[StrPath],
    num_scenes: int,
    needed_splits: Sequence[str],
) -> None:
    """Refuses a build that lost too much or has nothing to train or measure on.

    Raises:
        NothingNewError: earlier spans hold all scenes.
        DataError: with the first error when scenes were bad, or with the reasons of
            what was not used.
    """
    # Scenes this build never wanted must not thin out the bad ones.
    unwanted: tuple[Reason, ...] = (
        "other_processing_level",
        "no_label",
        "other_label_schema",
        "weak_label",
        spans.KNOWN_REASON,
    )
    num_wanted = num_scenes - sum(summary.num_rejected[reason] for reason in unwanted)
    if summary.num_bad_scenes > config.quality.max_rejected_fraction * num_wanted:
        raise DataError(
            f"{summary.first_error} ({summary.num_bad_scenes} of {num_wanted} scenes are bad; "
            f"max_rejected_fraction is {config.quality.max_rejected_fraction:g})",
            "too_many_bad_scenes",
        )
    reasons = (
        ", ".join(f"{reason} {count}" for reason, count in sorted(summary.num_rejected.items()))
        or "none"
    )
    where = ", ".join(str(path) for path in catalog_paths)
    counts = _num_examples(summary)
    if not summary.shards and summary.num_rejected[spans.KNOWN_REASON] >= num_scenes > 0:
        raise NothingNewError(f"{where}: every scene is in an earlier span already", "nothing_new")
    if not summary.shards:
        raise DataError(f"{where}: no pair of scenes gave a patch (not used: {reasons})", "no_pair")
    for split in needed_splits:
        if not counts[split]:
            raise DataError(
                f"{where}: no patch falls into split {split!r} ({dict(counts)}; not used: {reasons}); "
                "use a smaller split.block_size_km, another split.seed or more data",
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
    numbers: tuple[int, int],
    hashes: tuple[str, str, str],
) -> manifest.Manifest:
    per_class: dict[str, dict[str, int]] = {}
    for (split, label_id), count in sorted(summary.num_pixels_per_class.items()):
        if count:
            per_class.setdefault(split, {})[str(label_id)] = count
    num_examples, num_absent = _num_examples(summary), _nested(summary.contents.num_absent)
    return manifest.Manifest(
        kind="pairs" if config.label is None else "labels",
        span=numbers[0],
        version=numbers[1],
        patch_size_px=config.patch.size_px,
        pixel_size_m=config.patch.pixel_size_m,
        s1_bands=config.patch.s1_bands,
        s2_bands=config.patch.s2_bands,
        s2_processing_level=config.patch.s2_processing_level,
        label_schema=config.label.schema if config.label else None,
        num_examples=dict(sorted(num_examples.items())),
        num_pixels_per_class=per_class,
        num_rejected=dict(sorted(summary.num_rejected.items())),
        num_held_out=_nested(summary.contents.num_held_out),
        num_absent=num_absent,
        sources=tuple(
            manifest.SourceEntry(sensor=sensor, source=source, license=terms, num_pairs=count)
            for (sensor, source, terms), count in sorted(summary.num_pairs.items())
        ),
        shards=dict(sorted(summary.shards.items())),
        s1_statistics=_statistics(
            summary.s1_sums, "s1", config.patch.s1_bands, num_examples, num_absent
        ),
        s2_statistics=_statistics(
            summary.s2_sums, "s2", config.patch.s2_bands, num_examples, num_absent
        ),
        config=_what_decides_content(config),
        config_sha256=hashes[0],
        source_sha256=hashes[1],
        code_sha256=hashes[2],
        code_version=manifest.CODE_VERSION,
    )


def _statistics(
    sums: statistics.BandSums | None,
    sensor: Sensor,
    bands: tuple[str, ...],
    num_examples: Mapping[str, int],
    num_absent: Mapping[str, Mapping[str, int]],
) -> tuple[manifest.BandStatistics, ...]:
    if sums is None:
        raise ValueError("a build with train patches must have sums")
    # Without one scene of a sensor there is nothing to tell; a band without data
    # otherwise is an error.
    if num_absent.get(sensor, {}).get("train") == num_examples["train"]:
        return statistics.of_nothing(sensor, bands)
    return statistics.band_statistics(sums, sensor, bands)


def _nested(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """(what, split) -> count as what -> split -> count, sorted."""
    found: dict[str, dict[str, int]] = {}
    for (what, split), count in sorted(counts.items()):
        found.setdefault(what, {})[split] = count
    return found


@contextmanager
def _reported(spool_dir: str, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Calls `on_progress` now and then from what lies in the spool: workers may be other processes."""
    if on_progress is None:
        yield
        return

    def look() -> None:
        # A large scene has several strips, so their number may pass that of the scenes.
        on_progress(min(spool.count_finished(spool_dir), total), total)

    # A store is asked less often: every look is a listing.
    with repeating(look, 10.0 if is_remote(spool_dir) else 0.5):
        yield
    on_progress(total, total)
