"""Writers: spooled patches -> shards, rejections -> rejected/*.ndjson, sums -> one summary that the manifest is made of.

Input: CutResults and Rejections. Output: files below the building directory. A patch's
shard and place in it depend on patch ids only, so the same input gives the same bytes
whatever the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam
import tensorflow as tf

from beam_jobs.build import shard_sizes, spool
from beam_jobs.build.patches import Rejection
from beam_jobs.build.shard_sizes import Volume
from beam_jobs.build.spool import CutResult, PatchRef
from beam_jobs.config import ShardConfig
from beam_jobs.contracts import layout
from beam_jobs.contracts.manifest import ShardEntry
from beam_jobs.data_card.contents import Contents
from beam_jobs.data_card.statistics import BandSums
from beam_jobs.scenes.scene import Scene
from beam_jobs.storage import files

SUMMARY_NAME = "summary.pickle"


@dataclass(kw_only=True)
class Summary:
    """All that the manifest needs, merged over strips.

    Attributes:
        s1_sums: over the train split; None when it is empty.
        s2_sums: likewise.
        num_pixels_per_class: (split, label id) -> pixels.
        num_rejected: reason -> number of scenes or patches.
        num_bad_scenes: scenes that broke a rule.
        first_error: detail of the first of them by id.
        shards: path below the version directory -> entry.
        contents: of the shards.
        num_pairs: (sensor, source, license) -> pairs of scenes with a scene of it.
    """

    s1_sums: BandSums | None = None
    s2_sums: BandSums | None = None
    num_pixels_per_class: Counter[tuple[str, int]] = field(default_factory=Counter)
    num_rejected: Counter[str] = field(default_factory=Counter)
    num_bad_scenes: int = 0
    first_error: str = ""
    shards: dict[str, ShardEntry] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
    num_pairs: Counter[tuple[str, str, str]] = field(default_factory=Counter)


@dataclass
class WriteShards(beam.PTransform):
    """PatchRefs -> gzipped TFRecord shards; yields a Summary of each."""

    building_dir: str
    config: ShardConfig

    def expand(self, refs: beam.PCollection) -> beam.PCollection:
        """Sums first: the number of shards of a split must be known before a patch can go to one."""
        volumes = (
            refs
            | beam.Map(lambda ref: (ref.split, ref))
            | beam.CombinePerKey(shard_sizes.SumVolumes())
        )
        return (
            refs
            | "KeyByShard" >> beam.Map(_shard_key, beam.pvalue.AsDict(volumes), self.config)
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard, self.building_dir)
        )


def _shard_key(
    ref: PatchRef, volumes: dict[str, Volume], config: ShardConfig
) -> tuple[tuple[str, int, int], PatchRef]:
    num_shards = volumes[ref.split].num_shards(
        config.target_shard_mb, config.num_examples_per_shard
    )
    # patch_id is a hash already; its first digits spread patches of one place over all
    # shards.
    return (ref.split, int(ref.patch_id[:12], 16) % num_shards, num_shards), ref


def _write_shard(
    group: tuple[tuple[str, int, int], Iterable[PatchRef]], building_dir: str
) -> Summary:
    (split, shard, num_shards), refs = group
    ordered = sorted(refs, key=lambda ref: ref.patch_id)
    name = layout.shard_name(split, shard, num_shards)
    contents = Contents()
    with files.local_target(f"{building_dir}/{name}") as path:
        with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            for serialized in spool.read(ordered):
                writer.write(serialized)
                contents.add(split, serialized)
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
    """Rejections -> rejected/scenes.ndjson and rejected/patches.ndjson, by id; yields a Summary of them."""

    building_dir: str

    def expand(self, rejections: beam.PCollection) -> beam.PCollection:
        """One group per file."""
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
    """Where the two scenes of a pair come from, or the one that is there."""
    there = [scene for scene in pair if not scene.is_absent]
    return Summary(
        num_pairs=Counter((scene.sensor, scene.source, scene.license) for scene in there)
    )


class MergeSummaries(beam.CombineFn):
    """CutResults and Summaries -> one Summary."""

    def create_accumulator(self) -> Summary:
        """Nothing yet."""
        return Summary()

    def add_input(self, summary: Summary, element: CutResult | Summary) -> Summary:
        """Takes either."""
        if isinstance(element, Summary):
            return _merge(summary, element)
        summary.s1_sums = spool.merge_sums(summary.s1_sums, element.s1_sums)
        summary.s2_sums = spool.merge_sums(summary.s2_sums, element.s2_sums)
        summary.num_pixels_per_class.update(element.num_pixels_per_class)
        return summary

    def merge_accumulators(self, summaries: Iterable[Summary]) -> Summary:
        """Sums."""
        merged = Summary()
        for summary in summaries:
            merged = _merge(merged, summary)
        return merged

    def extract_output(self, summary: Summary) -> Summary:
        """As it is."""
        return summary


def _merge(one: Summary, two: Summary) -> Summary:
    # Not `+`, which drops what is below 0, as duplicates are until they meet what they
    # take from.
    num_pixels_per_class = Counter(one.num_pixels_per_class)
    num_pixels_per_class.update(two.num_pixels_per_class)
    # In place: a Summary is merged once a shard, and a new one each time would copy all
    # that is there already.
    one.contents.merge(two.contents)
    return Summary(
        s1_sums=spool.merge_sums(one.s1_sums, two.s1_sums),
        s2_sums=spool.merge_sums(one.s2_sums, two.s2_sums),
        num_pixels_per_class=num_pixels_per_class,
        num_rejected=one.num_rejected + two.num_rejected,
        num_bad_scenes=one.num_bad_scenes + two.num_bad_scenes,
        first_error=one.first_error or two.first_error,
        shards={**one.shards, **two.shards},
        contents=one.contents,
        num_pairs=one.num_pairs + two.num_pairs,
    )


def write_summary(summary: Summary, building_dir: str) -> Any:
    """Leaves the summary where the job's driver finds it once the pipeline is done."""
    files.write_bytes(f"{building_dir}/{SUMMARY_NAME}", pickle.dumps(summary))
    return summary


def read_summary(building_dir: str) -> Summary:
    """The summary a pipeline left."""
    summary = pickle.loads(files.read_bytes(f"{building_dir}/{SUMMARY_NAME}"))
    if not isinstance(summary, Summary):
        raise ValueError(f"{building_dir}: expected a Summary, got {type(summary).__name__}")
    return summary
