"""One build: catalogs -> a version directory with shards, manifest and rejected records.

`build_pairs.py` and `build_labels.py` call it. The Beam pipeline writes into a hidden building directory; the driver checks
what came of it, writes the manifest and renames the directory last, so a version that is visible is whole.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam

from beam_jobs import catalogs, data_card, duplicates, holdouts, runner, spans, spool, statistics, writers
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.errors import DataError
from beam_jobs.scenes import constellation_of
from beam_jobs.transforms import REJECTED, CutPatches, InspectScenes, MakePairs

OnProgress = Callable[[int, int], None]

_LOGGER = logging.getLogger(__name__)


def build(
    config: BuildConfig,
    catalog_paths: Sequence[Path],
    output_root: Path,
    span: int | None = 1,
    version: int | None = None,
    on_progress: OnProgress | None = None,
    beam_options: Sequence[str] = (),
) -> Path:
    """Builds one version and returns its directory.

    Args:
        config: of the build.
        catalog_paths: STAC catalogs to read.
        output_root: folder that holds the spans.
        span: number of the data span; None begins the next one, which takes only scenes that no earlier span was cut from.
        version: number to build; None takes the newest version of the span when it was built from the same config,
            catalogs and code, and the next free number otherwise.
        on_progress: called with (strips cut, at most all; Sentinel-1 scenes in the catalogs) while patches are cut.
        beam_options: of Beam's own, such as `--runner=DataflowRunner`; none means the local runner.

    Raises:
        DataError: input breaks a rule, too many scenes are bad, nothing is left, or the version exists.
    """
    output_root = Path(output_root)
    config = replace(config, split=holdouts.with_hashes(config.split))
    earlier: list[Path] = []
    if span is None:
        span, earlier = spans.next_span(output_root), spans.earlier_scene_files(output_root)
    hashes = _hashes(config, catalog_paths, earlier)
    existing = [v for s, v in layout.list_versions(output_root) if s == span]
    if version is None:
        if existing:
            newest = layout.version_dir(output_root, span, existing[-1])
            if _built_from(newest) == hashes:
                _LOGGER.info("%s was built from the same config, catalogs and code; nothing to do", newest)
                return newest
        version = existing[-1] + 1 if existing else 1
    target = layout.version_dir(output_root, span, version)
    if target.exists():
        raise DataError(f"{target}: exists already, and a version is never overwritten", "version_exists")
    building = _prepare(output_root, span, version, " ".join(hashes))
    num_scenes = _count_scenes(catalog_paths)
    with _reported(building / "spool", num_scenes["sentinel-1"], on_progress):
        summary = _run(config, catalog_paths, building, earlier, beam_options)
    _check(summary, config, catalog_paths, num_scenes.total())
    found = _manifest(summary, config, (span, version), hashes)
    (building / writers.SUMMARY_NAME).unlink()
    (building / _MARKER).unlink()
    shutil.rmtree(building / "spool", ignore_errors=True)
    data_card.write(building, found, summary.contents)
    (building / layout.MANIFEST_NAME).write_text(found.to_json())
    try:
        os.rename(building, target)
    except OSError as error:
        raise DataError(f"{target}: another job wrote it meanwhile", "version_exists") from error
    return target


_MARKER = "building-from.txt"


def _built_from(version_path: Path) -> tuple[str, str, str] | None:
    """Hashes of the config, catalogs and code of a version; None when it is of a format that is no longer read."""
    try:
        found = manifest.read(version_path)
    except manifest.FormatError:
        return None
    return found.config_sha256, found.source_sha256, found.code_sha256


def _hashes(config: BuildConfig, catalog_paths: Sequence[Path], earlier: Sequence[Path]) -> tuple[str, str, str]:
    """(config, source, code): what a version is made from."""
    source_sha256 = catalogs.content_sha256(catalog_paths)
    if earlier:
        source_sha256 = settings.sha256([source_sha256, spans.scene_files_sha256(earlier)])
    return settings.sha256(_what_decides_content(config)), source_sha256, source_fingerprint(("beam_jobs",))


def _what_decides_content(config: BuildConfig) -> dict[str, Any]:
    """The config without what changes no byte of the output: the number of workers."""
    values: dict[str, Any] = settings.to_dict(config)
    del values["shards"]["num_workers"]
    return values


def _prepare(output_root: Path, span: int, version: int, marker: str) -> Path:
    """The building directory: what a killed job of the same input left is kept, anything else is cleared."""
    building = layout.building_dir(output_root, span, version)
    marker_path = building / _MARKER
    if building.exists() and not (marker_path.exists() and marker_path.read_text() == marker):
        shutil.rmtree(building)
    building.mkdir(parents=True, exist_ok=True)
    marker_path.write_text(marker)
    # What an earlier run summed up is not what this one finds.
    (building / writers.SUMMARY_NAME).unlink(missing_ok=True)
    # Shards are cheap to write again, and a half-written one must not be mistaken for a whole one.
    for name in (*layout.SPLITS, layout.REJECTED_DIR):
        shutil.rmtree(building / name, ignore_errors=True)
    return building


def _run(
    config: BuildConfig,
    catalog_paths: Sequence[Path],
    building: Path,
    earlier: Sequence[Path],
    beam_options: Sequence[str],
) -> writers.Summary:
    with beam.Pipeline(options=runner.pipeline_options(config.shards.num_workers, beam_options)) as pipeline:
        _expand(pipeline, config, catalog_paths, building, earlier)
    if not (building / writers.SUMMARY_NAME).exists():
        raise DataError("the runner took the job and ran nothing, as for a template or dry run: no version", "not_run")
    return writers.read_summary(building)


def _expand(
    pipeline: beam.Pipeline,
    config: BuildConfig,
    catalog_paths: Sequence[Path],
    building: Path,
    earlier: Sequence[Path],
) -> None:
    """The whole graph of a build, whatever the runner: catalogs -> files below `building` and one summary there."""
    items = (
        pipeline
        | "Catalogs" >> beam.Create([str(path) for path in catalog_paths])
        | "ReadItems" >> beam.FlatMap(lambda path: [(path, item) for item in catalogs.read_items(path)])
    )
    refused = []
    if earlier:
        parted = items | "LeaveOutKnown" >> spans.LeaveOutKnown(tuple(map(str, earlier)), REJECTED)
        items, refused = parted.new, [parted[REJECTED]]
    inspected = items | "InspectScenes" >> InspectScenes(config)
    paired = inspected.scenes | "MakePairs" >> MakePairs(config)
    paired["pairs"] | "WriteScenes" >> spans.WriteScenes(str(building))
    cut = paired["pairs"] | "CutPatches" >> CutPatches(config, str(building / "spool"))
    judged = (
        cut
        | "Refs" >> beam.FlatMap(lambda result: result.refs)
        | "RejectDuplicates" >> duplicates.RejectDuplicates(config)
    )
    doubled = judged[duplicates.DUPLICATE]
    rejected = (
        *refused,
        inspected[REJECTED],
        paired[REJECTED],
        cut | "CutRejections" >> beam.FlatMap(lambda result: result.rejections),
        doubled | "DuplicateRejections" >> beam.FlatMap(lambda result: result.rejections),
    ) | "Rejections" >> beam.Flatten()
    summaries = (
        # Each on its own: a Flatten of the results would keep every histogram in memory.
        cut | "MergeSums" >> beam.CombineGlobally(writers.MergeSummaries()),
        doubled | "MergeDuplicates" >> beam.CombineGlobally(writers.MergeSummaries()),
        rejected | "WriteRejected" >> writers.WriteRejected(str(building)),
        judged.refs | "WriteShards" >> writers.WriteShards(str(building), config.shards),
        paired["pairs"] | "Sources" >> beam.Map(writers.count_sources),
    )
    (
        summaries
        | "FlattenSummaries" >> beam.Flatten()
        | "MergeAll" >> beam.CombineGlobally(writers.MergeSummaries())
        | "WriteSummary" >> beam.Map(writers.write_summary, str(building))
    )


def _count_scenes(catalog_paths: Sequence[Path]) -> Counter[str]:
    """Number of items per constellation."""
    return Counter(
        constellation_of(item.get("properties") or {}) for path in catalog_paths for item in catalogs.read_items(path)
    )


def _check(summary: writers.Summary, config: BuildConfig, catalog_paths: Sequence[Path], num_scenes: int) -> None:
    """Refuses a build that lost too much or has nothing to train or measure on.

    Raises:
        DataError: with the first error when scenes were bad, or with the reasons of what was not used.
    """
    # Scenes this build never wanted must not thin out the bad ones.
    unwanted = ("other_processing_level", "no_label", spans.KNOWN_REASON)
    num_wanted = num_scenes - sum(summary.num_rejected[reason] for reason in unwanted)
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
        if count:
            per_class.setdefault(split, {})[str(label_id)] = count
    held_out: dict[str, dict[str, int]] = {}
    for (name, split), count in sorted(summary.contents.num_held_out.items()):
        held_out.setdefault(name, {})[split] = count
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
        num_held_out=held_out,
        sources=tuple(
            manifest.SourceEntry(sensor=sensor, source=source, license=terms, num_pairs=count)
            for (sensor, source, terms), count in sorted(summary.num_pairs.items())
        ),
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
def _reported(spool_dir: Path, total: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Calls `on_progress` every half second from what lies in the spool: workers may be other processes."""
    if on_progress is None:
        yield
        return
    done = threading.Event()

    def report() -> None:
        while not done.wait(0.5):
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
