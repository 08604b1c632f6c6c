"""One build: catalogs -> a version directory with shards, manifest and rejected records.

`build_pairs.py` and `build_labels.py` call it. The Beam pipeline writes into a hidden building directory; the driver checks
what came of it, writes the manifest and renames the directory last, so a version that is visible is whole. An object store
cannot rename a folder: there objects are moved, the manifest last, and what has no manifest is not a version.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import catalogs, runner, spool, statistics, storage, writers
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.errors import DataError
from beam_jobs.scenes import constellation_of
from beam_jobs.transforms import REJECTED, CutPatches, InspectScenes, MakePairs

OnProgress = Callable[[int, int], None]
StrPath = str | os.PathLike[str]

_LOGGER = logging.getLogger(__name__)


def build(
    config: BuildConfig,
    catalog_paths: Sequence[StrPath],
    output_root: StrPath,
    span: int = 1,
    version: int | None = None,
    on_progress: OnProgress | None = None,
    spool_root: StrPath | None = None,
) -> Location:
    """Builds one version and returns its directory.

    Args:
        config: of the build.
        catalog_paths: STAC catalogs to read.
        output_root: folder that holds the spans; path or URI, as the catalogs.
        span: number of the data span.
        version: number to build; None takes the newest version of the span when it was built from the same config,
            catalogs and code, and the next free number otherwise.
        on_progress: called with (strips cut, at most all; Sentinel-1 scenes in the catalogs) while patches are cut.
        spool_root: folder for encoded patches between cutting and sharding; None = beside the output. All workers must see
            it, and a killed job resumes only with the same one.

    Raises:
        DataError: input breaks a rule, too many scenes are bad, nothing is left, or the version exists.
    """
    output_root = locate(output_root)
    options = PipelineOptions(runner.local_arguments(config.shards.num_workers))
    # Beam does so too, but later: the driver looks at the output before there is a pipeline.
    FileSystems.set_options(options)
    source_sha256 = catalogs.content_sha256(catalog_paths)
    config_sha256 = settings.sha256(_what_decides_content(config))
    code_sha256 = source_fingerprint(("beam_jobs",))
    existing = [v for s, v in layout.list_versions(output_root) if s == span]
    hashes = (config_sha256, source_sha256, code_sha256)
    if version is None:
        if existing:
            # What a job left on a store that was killed after its manifest was moved.
            storage.delete_tree(str(layout.building_dir(output_root, span, existing[-1])))
            newest = layout.version_dir(output_root, span, existing[-1])
            found = manifest.read(newest)
            if (found.config_sha256, found.source_sha256, found.code_sha256) == hashes:
                _LOGGER.info("%s was built from the same config, catalogs and code; nothing to do", newest)
                return newest
        version = existing[-1] + 1 if existing else 1
    target = layout.version_dir(output_root, span, version)
    if _is_taken(target):
        raise DataError(f"{target}: exists already, and a version is never overwritten", "version_exists")
    marker = " ".join(hashes)
    building = str(layout.building_dir(output_root, span, version))
    _prepare(building, marker)
    spool_dir = f"{building}/spool" if spool_root is None else f"{locate(spool_root)}/{_spool_name(target, marker)}"
    num_scenes = _count_scenes(catalog_paths)
    with _reported(spool_dir, num_scenes["sentinel-1"], on_progress):
        _run(config, options, catalog_paths, building, spool_dir)
    summary = writers.read_summary(building)
    _check(summary, config, catalog_paths, num_scenes.total())
    found = _manifest(summary, config, (span, version), hashes)
    storage.write_bytes(f"{building}/{layout.MANIFEST_NAME}", found.to_json().encode())
    _publish(building, target)
    storage.delete_tree(spool_dir)
    return target


_MARKER = "building-from.txt"


def _what_decides_content(config: BuildConfig) -> dict[str, Any]:
    """The config without what changes no byte of the output: the number of workers."""
    values: dict[str, Any] = settings.to_dict(config)
    del values["shards"]["num_workers"]
    return values


def _spool_name(target: Location, marker: str) -> str:
    """Folder of one build below a spool folder that the user names: another version or input gets another."""
    where = str(target) if is_remote(target) else os.path.abspath(target)
    return hashlib.sha256(f"{where} {marker}".encode()).hexdigest()[:24]


def _is_taken(target: Location) -> bool:
    """Whether the version is there. On a store, objects without a manifest are what a killed job left of a move."""
    return (target / layout.MANIFEST_NAME).exists() if is_remote(target) else target.exists()


def _prepare(building: str, marker: str) -> None:
    """Makes the building directory: what a killed job of the same input left is kept, anything else is cleared."""
    marker_path = f"{building}/{_MARKER}"
    if not (storage.exists(marker_path) and storage.read_bytes(marker_path) == marker.encode()):
        storage.delete_tree(building)
    storage.write_bytes(marker_path, marker.encode())
    # Shards are cheap to write again, and a half-written one must not be mistaken for a whole one.
    for name in (*layout.SPLITS, layout.REJECTED_DIR):
        storage.delete_tree(f"{building}/{name}")


def _publish(building: str, target: Location) -> None:
    """Turns the building directory into the version.

    Raises:
        DataError: the version has come to be meanwhile.
    """
    if is_remote(target):
        if _is_taken(target):
            raise DataError(f"{target}: another job wrote it meanwhile", "version_exists")
        storage.delete_tree(str(target))
        kept = tuple(f"{building}/{name}/" for name in (*layout.SPLITS, layout.REJECTED_DIR))
        moved = [path[len(building) + 1 :] for path in storage.list_files(building) if path.startswith(kept)]
        storage.move_files(building, str(target), moved)
        storage.move_files(building, str(target), [layout.MANIFEST_NAME])
        # Last: a job killed before this line finds its spool again.
        storage.delete_tree(building)
        return
    for name in (writers.SUMMARY_NAME, _MARKER):
        os.unlink(f"{building}/{name}")
    storage.delete_tree(f"{building}/spool")
    try:
        os.rename(building, target)
    except OSError as error:
        raise DataError(f"{target}: another job wrote it meanwhile", "version_exists") from error


def _run(
    config: BuildConfig, options: PipelineOptions, catalog_paths: Sequence[StrPath], building: str, spool_dir: str
) -> None:
    with beam.Pipeline(options=options) as pipeline:
        inspected = (
            pipeline
            | "Catalogs" >> beam.Create([str(path) for path in catalog_paths])
            | "ReadItems" >> beam.FlatMap(lambda path: [(path, item) for item in catalogs.read_items(path)])
            | "InspectScenes" >> InspectScenes(config)
        )
        paired = inspected.scenes | "MakePairs" >> MakePairs(config)
        cut = paired["pairs"] | "CutPatches" >> CutPatches(config, spool_dir)
        shards = (
            cut
            | "Refs" >> beam.FlatMap(lambda result: result.refs)
            | "WriteShards" >> writers.WriteShards(building, config.shards.num_examples_per_shard)
        )
        rejected = (
            inspected[REJECTED],
            paired[REJECTED],
            cut | "CutRejections" >> beam.FlatMap(lambda result: result.rejections),
        ) | "Rejections" >> beam.Flatten()
        counted = rejected | "WriteRejected" >> writers.WriteRejected(building)
        sums = cut | "MergeSums" >> beam.CombineGlobally(writers.MergeSummaries())
        (
            (sums, counted, shards)
            | "FlattenSummaries" >> beam.Flatten()
            | "MergeAll" >> beam.CombineGlobally(writers.MergeSummaries())
            | "WriteSummary" >> beam.Map(writers.write_summary, building)
        )


def _count_scenes(catalog_paths: Sequence[StrPath]) -> Counter[str]:
    """Number of items per constellation."""
    return Counter(
        constellation_of(item.get("properties") or {}) for path in catalog_paths for item in catalogs.read_items(path)
    )


def _check(summary: writers.Summary, config: BuildConfig, catalog_paths: Sequence[StrPath], num_scenes: int) -> None:
    """Refuses a build that lost too much or has nothing to train or measure on.

    Raises:
        DataError: with the first error when scenes were bad, or with the reasons of what was not used.
    """
    # Scenes this build never wanted must not thin out the bad ones.
    num_wanted = num_scenes - summary.num_rejected["other_processing_level"] - summary.num_rejected["no_label"]
    if summary.num_bad_scenes > config.quality.max_rejected_fraction * num_wanted:
        raise DataError(
            f"{summary.first_error} ({summary.num_bad_scenes} of {num_wanted} scenes are bad; "
            f"max_rejected_fraction is {config.quality.max_rejected_fraction:g})",
            "too_many_bad_scenes",
        )
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.num_rejected.items())) or "none"
    where = ", ".join(str(path) for path in catalog_paths)
    counts = _num_examples(summary)
    if not summary.shards:
        raise DataError(f"{where}: no pair of scenes gave a patch (not used: {reasons})", "no_pair")
    for split in layout.SPLITS:
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
    summary: writers.Summary, config: BuildConfig, numbers: tuple[int, int], hashes: tuple[str, str, str]
) -> manifest.Manifest:
    if summary.s1_sums is None or summary.s2_sums is None:
        raise ValueError("a build with train patches must have sums")
    per_class: dict[str, dict[str, int]] = {}
    for (split, label_id), count in sorted(summary.num_pixels_per_class.items()):
        per_class.setdefault(split, {})[str(label_id)] = count
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
        num_examples=dict(sorted(_num_examples(summary).items())),
        num_pixels_per_class=per_class,
        num_rejected=dict(sorted(summary.num_rejected.items())),
        shards=dict(sorted(summary.shards.items())),
        s1_statistics=statistics.band_statistics(summary.s1_sums, "s1", config.patch.s1_bands),
        s2_statistics=statistics.band_statistics(summary.s2_sums, "s2", config.patch.s2_bands),
        config=_what_decides_content(config),
        config_sha256=hashes[0],
        source_sha256=hashes[1],
        code_sha256=hashes[2],
        code_version=manifest.CODE_VERSION,
    )


@contextmanager
def _reported(spool_dir: str, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Calls `on_progress` now and then from what lies in the spool: workers may be other processes."""
    if on_progress is None:
        yield
        return
    done = threading.Event()
    # A store is asked less often: every look is a listing.
    num_seconds = 10.0 if is_remote(spool_dir) else 0.5

    def report() -> None:
        while not done.wait(num_seconds):
            # A large scene has several strips, so their number may pass that of the scenes.
            on_progress(min(spool.count_finished(spool_dir), total), total)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    on_progress(total, total)
