"""Writers: the shards, `rejected/*.ndjson` and the summary of a build.

Input: CutResults and Rejections. Output: files below the building directory. The driver
makes the manifest from the summary. Patch ids alone decide which shard a patch goes to
and where in it, so the same input gives the same bytes with any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import tensorflow as tf

from beam_jobs.build import shard_sizes, spool, stored
from beam_jobs.build.patches import Rejection
from beam_jobs.build.shard_sizes import Volume
from beam_jobs.build.spool import CutResult, PatchRef
from beam_jobs.config import ShardConfig
from beam_jobs.contracts import layout
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.manifest import ShardEntry
from beam_jobs.data_card.contents import Contents
from beam_jobs.data_card.statistics import BandSums
from beam_jobs.engines.claims import Claim
from beam_jobs.errors import DataError
from beam_jobs.scenes.scene import Scene
from beam_jobs.storage import files

SUMMARY_NAME = "summary.npz"


@dataclass(frozen=True, kw_only=True, order=True)
class Origin:
    """Where a scene comes from.

    Attributes:
        sensor: sensor of the scene.
        source: data set or collection.
        license: SPDX name or text of its license.
    """

    sensor: Sensor
    source: str
    license: str


@dataclass(kw_only=True)
class Summary:
    """What the manifest needs to know, merged over all parts of the build.

    Attributes:
        band_sums: per sensor, the sums over the train split; empty when the split is
            empty.
        num_pixels_per_class: (split, label id) -> number of pixels.
        num_rejected: reason -> number of scenes or patches.
        num_bad_scenes: number of scenes that break a rule.
        first_error: detail of the bad scene with the smallest id; "" = no bad scene.
        shards: path below the version directory -> entry of the manifest.
        contents: counts over the patches in the shards.
        num_out_of_range: (sensor, band) -> number of pixels that are no data because no
            measurement can have their value.
        num_pairs: origin -> number of scene pairs that contain a scene of that origin.
    """

    band_sums: dict[Sensor, BandSums] = field(default_factory=dict)
    num_pixels_per_class: Counter[tuple[str, int]] = field(default_factory=Counter)
    num_rejected: Counter[str] = field(default_factory=Counter)
    num_bad_scenes: int = 0
    first_error: str = ""
    shards: dict[str, ShardEntry] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
    num_pairs: Counter[Origin] = field(default_factory=Counter)
    num_out_of_range: Counter[tuple[Sensor, str]] = field(default_factory=Counter)


@dataclass
class WriteShards(beam.PTransform):
    """Write PatchRefs to gzipped TFRecord shards and yield a Summary of each shard."""

    building_dir: str
    config: ShardConfig
    claim: Claim | None = None

    def expand(self, refs: beam.PCollection) -> beam.PCollection:
        """Sum up the volumes of the splits, assign patches to shards, write these."""
        volumes = (
            refs
            | "Volumes" >> beam.Map(lambda ref: (ref.split, ref.volume))
            | beam.CombinePerKey(shard_sizes.SumVolumes())
        )
        return (
            refs
            | "KeyByShard" >> beam.Map(_shard_key, beam.pvalue.AsDict(volumes), self.config)
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard, self.building_dir, self.claim)
        )


def _shard_key(
    ref: PatchRef, volumes: Mapping[str, Volume], config: ShardConfig
) -> tuple[str, PatchRef]:
    """Return the name of the shard that a patch goes to, and the patch."""
    num_shards = volumes[ref.split].num_shards(
        config.target_shard_mb, config.num_examples_per_shard
    )
    # The patch id is a hash, so its first digits spread the patches of one place over
    # all shards.
    shard = int(ref.patch_id[:12], 16) % num_shards
    return layout.shard_name(ref.split, shard, num_shards), ref


def _write_shard(
    group: tuple[str, Iterable[PatchRef]], building_dir: str, claim: Claim | None = None
) -> Summary:
    if claim is not None:
        claim.check()
    name, refs = group
    ordered = sorted(refs, key=lambda ref: ref.patch_id)
    contents = Contents()
    with files.local_target(f"{building_dir}/{name}") as path:
        with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for serialized in spool.read(ordered):
                writer.write(serialized)
                contents.add(ordered[0].split, serialized)
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        entry = ShardEntry(
            num_examples=len(ordered), num_bytes=os.path.getsize(path), sha256=digest.hexdigest()
        )
    return Summary(shards={name: entry}, contents=contents)


@dataclass
class WriteRejected(beam.PTransform):
    """Write Rejections to `rejected/scenes.ndjson` and `rejected/patches.ndjson`.

    The lines are sorted by id. Yields one Summary per file.
    """

    building_dir: str

    def expand(self, rejections: beam.PCollection) -> beam.PCollection:
        """Group the Rejections by file and write each file."""
        return (
            rejections
            | "KeyByKind" >> beam.Map(lambda rejection: (rejection.kind, rejection))
            | "GroupByKind" >> beam.GroupByKey()
            | "WriteFile" >> beam.Map(_write_rejected, self.building_dir)
        )


def _write_rejected(group: tuple[str, Iterable[Rejection]], building_dir: str) -> Summary:
    kind, rejections = group
    ordered = sorted(
        rejections, key=lambda rejection: (rejection.id, rejection.reason, rejection.detail)
    )
    path = f"{building_dir}/{layout.REJECTED_DIR}/{kind}.ndjson"
    with files.local_target(path) as local, open(local, "w") as lines:
        for rejection in ordered:
            row = {key: value for key, value in asdict(rejection).items() if key != "kind"}
            lines.write(json.dumps(row, sort_keys=True) + "\n")
    errors = [rejection for rejection in ordered if rejection.is_error]
    return Summary(
        num_rejected=Counter(rejection.reason for rejection in ordered),
        num_bad_scenes=len({rejection.id for rejection in errors}),
        first_error=errors[0].detail if errors else "",
    )


def count_sources(pair: tuple[Scene, Scene]) -> Summary:
    """Return a Summary that counts where the scenes of a pair come from."""
    return Summary(
        num_pairs=Counter(
            Origin(sensor=scene.sensor, source=scene.source, license=scene.license)
            for scene in pair
            if not scene.is_absent
        )
    )


class MergeSummaries(beam.CombineFn):
    """Merge CutResults and Summaries into one Summary."""

    def create_accumulator(self) -> Summary:
        """Return an empty Summary."""
        return Summary()

    def add_input(self, summary: Summary, element: CutResult | Summary) -> Summary:
        """Add a CutResult or a Summary."""
        if isinstance(element, Summary):
            return _merge(summary, element)
        summary.band_sums = spool.merge_sums(summary.band_sums, element.band_sums)
        summary.num_pixels_per_class.update(element.num_pixels_per_class)
        summary.num_out_of_range.update(element.num_out_of_range)
        return summary

    def merge_accumulators(self, summaries: Iterable[Summary]) -> Summary:
        """Return all summaries merged into one."""
        merged = Summary()
        for summary in summaries:
            merged = _merge(merged, summary)
        return merged

    def extract_output(self, summary: Summary) -> Summary:
        """Return the summary unchanged."""
        return summary


def _merge(one: Summary, two: Summary) -> Summary:
    # Not `+`: it drops counts below 0. The counts of a duplicate are negative until
    # they are merged with those they are subtracted from.
    num_pixels_per_class = Counter(one.num_pixels_per_class)
    num_pixels_per_class.update(two.num_pixels_per_class)
    # In place: one merge per shard would otherwise copy all counts each time.
    one.contents.merge(two.contents)
    return Summary(
        band_sums=spool.merge_sums(one.band_sums, two.band_sums),
        num_pixels_per_class=num_pixels_per_class,
        num_rejected=one.num_rejected + two.num_rejected,
        num_bad_scenes=one.num_bad_scenes + two.num_bad_scenes,
        first_error=one.first_error or two.first_error,
        shards={**one.shards, **two.shards},
        contents=one.contents,
        num_pairs=one.num_pairs + two.num_pairs,
        num_out_of_range=one.num_out_of_range + two.num_out_of_range,
    )


def write_summary(summary: Summary, building_dir: str, claim: Claim | None = None) -> Any:
    """Write the summary to the building directory, where the driver reads it later.

    Raises:
        DataError: the run of `claim` no longer holds the directory.
    """
    if claim is not None:
        claim.check()
    files.write_bytes(f"{building_dir}/{SUMMARY_NAME}", stored.pack(summary))
    return summary


def read_summary(building_dir: str) -> Summary:
    """Return the summary that `write_summary` wrote.

    Raises:
        DataError: the file holds something else.
    """
    path = f"{building_dir}/{SUMMARY_NAME}"
    try:
        return stored.unpack(Summary, files.read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: {error}; run the build again", "unfinished_version") from error
