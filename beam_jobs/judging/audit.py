"""Audit: whether unlabeled train patches show ground of eval or test labels.

Input: version directories of pairs and of labels. Output: an AuditReport. Shards are
streamed: only a small AuditedPatch of each labelled eval and test patch is kept in
memory.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import tensorflow as tf

from beam_jobs.contracts import layout, manifest, records, settings
from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.locations import locate
from beam_jobs.contracts.shards import why_damaged
from beam_jobs.errors import DataError
from beam_jobs.judging import overlaps
from beam_jobs.judging.overlaps import AuditedPatch, Overlap

MAX_HASH_DISTANCE = 6
"""Most bits of 128 in which hashes of the same pixels may differ.

Rounding to 0.05 dB and 10 % more light change up to 3 bits. Another date of the same
place changes 8 or more. No two places of real and simulated patches differed in fewer
than 39.
"""
MAX_LISTED = 10_000
"""Most overlaps that a report lists; all are counted.

The limit bounds memory when a whole set overlaps.
"""

_BATCH = 512
"""Number of unlabeled patches that are compared at a time."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes:
        pairs: version directories of unlabeled pairs.
        labels: version directories of labelled patches.
        manifests_sha256: version directory -> hash of its manifest.
        buffer_m: patches closer than this count as overlapping.
        max_hash_distance: most bits in which the hashes of overlapping patches differ.
        num_pair_patches: unlabeled train patches.
        num_label_patches: labelled eval and test patches.
        num_pair_patches_without_hash: unlabeled train patches that are compared by
            place only: they have too little texture, or a block without data.
        num_label_patches_without_hash: labelled patches that are compared by place
            only.
        num_footprint_overlaps: overlaps found by place.
        num_hash_overlaps: overlaps found by image content.
        num_overlaps: overlaps found by either.
        num_leaking_pair_patches: unlabeled train patches with an overlap; these should
            be left out of training.
        overlaps: the first MAX_LISTED overlaps.
    """

    pairs: tuple[str, ...]
    labels: tuple[str, ...]
    manifests_sha256: dict[str, str]
    buffer_m: float
    max_hash_distance: int
    num_pair_patches: int
    num_label_patches: int
    num_pair_patches_without_hash: int
    num_label_patches_without_hash: int
    num_footprint_overlaps: int
    num_hash_overlaps: int
    num_overlaps: int
    num_leaking_pair_patches: int
    overlaps: tuple[Overlap, ...]

    @property
    def verdict(self) -> str:
        """The result in one line."""
        compared = f"{self.num_pair_patches} unlabeled train patches"
        judged = f"{self.num_label_patches} labelled eval and test patches"
        if not self.num_overlaps:
            return f"{compared}, {judged}: no overlap"
        first = self.overlaps[0]
        return (
            f"{self.num_leaking_pair_patches} of {compared} overlap {judged.partition(' ')[2]} "
            f"({self.num_footprint_overlaps} times by footprint, "
            f"{self.num_hash_overlaps} by looks); "
            f"the first is {first.pair_patch_id} on {first.label_patch_id} of {first.label_split}"
        )

    def to_json(self) -> str:
        """Return the report as indented JSON with sorted keys."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> AuditReport:
    """Return the report that `AuditReport.to_json` wrote."""
    return settings.from_dict(AuditReport, json.loads(text), "audit")


def audit(
    pairs: Sequence[str | os.PathLike[str]],
    labels: Sequence[str | os.PathLike[str]],
    buffer_m: float = 0.0,
    max_hash_distance: int = MAX_HASH_DISTANCE,
) -> AuditReport:
    """Compare every unlabeled train patch with every labelled eval and test patch.

    Args:
        pairs: version directories, or roots; a root stands for the newest version of
            each of its spans.
        labels: as `pairs`.
        buffer_m: patches closer than this count as overlapping; at 0, patches side by
            side do not.
        max_hash_distance: most bits in which the hashes of overlapping patches differ,
            0-127.

    Raises:
        DataError: a directory is no version, is of the wrong kind, has no patch, or
            shares no band with the others.
    """
    return compare(_versions(pairs), _versions(labels), buffer_m, max_hash_distance)


def compare(
    pair_versions: Mapping[str, manifest.Manifest],
    label_versions: Mapping[str, manifest.Manifest],
    buffer_m: float = 0.0,
    max_hash_distance: int = MAX_HASH_DISTANCE,
) -> AuditReport:
    """Run the audit on versions whose manifests are already read.

    Args:
        pair_versions: version directory, local or in an object store -> its manifest.
        label_versions: as `pair_versions`.
        buffer_m: see `audit`.
        max_hash_distance: see `audit`.

    Raises:
        DataError: see `audit`.
    """
    if not buffer_m >= 0:
        raise ValueError(f"buffer_m must be 0 or above, got {buffer_m}")
    if not 0 <= max_hash_distance < overlaps.HASH_BITS:
        raise ValueError(
            f"max_hash_distance must be 0-{overlaps.HASH_BITS - 1}, got {max_hash_distance}"
        )
    for versions, kind in ((pair_versions, "pairs"), (label_versions, "labels")):
        for path, read in versions.items():
            if read.kind != kind:
                raise DataError(f"{path}: holds {read.kind!r}, needs {kind!r}", "wrong_kind")
    manifests = [*pair_versions.values(), *label_versions.values()]
    common = {sensor: _common_bands(manifests, sensor) for sensor in BANDS}
    index = overlaps.Index(
        _audited_patches(label_versions, ("eval", "test"), common), buffer_m, max_hash_distance
    )
    listed: list[Overlap] = []
    num_patches = num_without_hash = num_near = num_alike = num_overlaps = num_leaking = 0
    patches = _audited_patches(pair_versions, ("train",), common)
    for batch in _batches(patches):
        num_patches += len(batch)
        num_without_hash += sum(patch.hash is None for patch in batch)
        for found in index.overlaps(batch):
            num_overlaps += len(found)
            num_near += sum(overlap.footprints_overlap for overlap in found)
            num_alike += sum(overlap.hash_distance is not None for overlap in found)
            num_leaking += bool(found)
            listed.extend(found[: MAX_LISTED - len(listed)])
    # An audit that compared nothing must not pass.
    for number, where in ((num_patches, pair_versions), (len(index.patches), label_versions)):
        if number == 0:
            raise DataError(f"{', '.join(where)}: holds no patch to compare", "no_patch")
    return AuditReport(
        pairs=tuple(pair_versions),
        labels=tuple(label_versions),
        manifests_sha256={
            path: m.sha256 for path, m in {**pair_versions, **label_versions}.items()
        },
        buffer_m=buffer_m,
        max_hash_distance=max_hash_distance,
        num_pair_patches=num_patches,
        num_label_patches=len(index.patches),
        num_pair_patches_without_hash=num_without_hash,
        num_label_patches_without_hash=sum(patch.hash is None for patch in index.patches),
        num_footprint_overlaps=num_near,
        num_hash_overlaps=num_alike,
        num_overlaps=num_overlaps,
        num_leaking_pair_patches=num_leaking,
        overlaps=tuple(listed),
    )


def across_spans(
    versions: Mapping[str, manifest.Manifest], trained: Collection[str]
) -> list[Overlap]:
    """Return where train patches of a span show ground that another span judges.

    A block has one split in all spans. But a place may change its split when its later
    scenes lack the hold-out or the declared split of the earlier ones. Within a span
    nothing is compared: there the rules of the split decide.

    Args:
        versions: version directory -> its manifest, one version of each span.
        trained: those of `versions` whose train patches are used.

    Raises:
        DataError: the versions share no band, or a shard is damaged.
    """
    common = {sensor: _common_bands(list(versions.values()), sensor) for sensor in BANDS}
    judged: list[AuditedPatch] = []
    judged_by: dict[str, str] = {}
    for path, found in versions.items():
        for patch in _audited_patches({path: found}, ("eval", "test"), common):
            judged.append(patch)
            judged_by[patch.patch_id] = path
    index = overlaps.Index(judged, 0.0, MAX_HASH_DISTANCE)
    return [
        overlap
        for path in trained
        for batch in _batches(_audited_patches({path: versions[path]}, ("train",), common))
        for found in index.overlaps(batch)
        for overlap in found
        if judged_by[overlap.label_patch_id] != path
    ]


def _batches(patches: Iterator[AuditedPatch]) -> Iterator[list[AuditedPatch]]:
    while batch := list(itertools.islice(patches, _BATCH)):
        yield batch


def _versions(paths: Sequence[str | os.PathLike[str]]) -> dict[str, manifest.Manifest]:
    """Return the versions that `paths` name, with their manifests."""
    found: dict[str, manifest.Manifest] = {}
    for path in paths:
        newest = dict(layout.list_versions(path))
        inside = [layout.version_dir(path, span, version) for span, version in newest.items()]
        if not inside and not (locate(path) / layout.MANIFEST_NAME).exists():
            raise DataError(
                f"{path}: neither a version directory nor a folder that holds one", "no_version"
            )
        for version_path in inside or [locate(path)]:
            found[str(version_path)] = manifest.read(version_path)
    return found


def _common_bands(manifests: Sequence[manifest.Manifest], sensor: Sensor) -> list[str]:
    """Return the bands of `sensor` that all versions hold; hashes must use the same."""
    sets = [set(m.bands(sensor)) for m in manifests]
    common = [name for name in BANDS[sensor] if all(name in names for names in sets)]
    if not common:
        raise DataError(f"pairs and labels share no band of {sensor}", "no_common_band")
    return common


def _audited_patches(
    versions: Mapping[str, manifest.Manifest],
    splits: Sequence[str],
    common: dict[Sensor, list[str]],
) -> Iterator[AuditedPatch]:
    """Yield what the audit keeps of every patch, shard by shard."""
    for path, found in versions.items():
        channels = {
            sensor: [found.bands(sensor).index(name) for name in names]
            for sensor, names in common.items()
        }
        for split in splits:
            # Read the shards that the manifest lists: a missing shard must be an error,
            # not an empty shard.
            for name in sorted(name for name in found.shards if name.startswith(f"{split}/")):
                yield from _read_shard(f"{path}/{name}", split, found.pixel_size_m, channels)


def _read_shard(
    shard: str, split: str, pixel_size_m: float, channels: Mapping[Sensor, list[int]]
) -> Iterator[AuditedPatch]:
    try:
        for raw in tf.data.TFRecordDataset(shard, compression_type="GZIP").as_numpy_iterator():
            yield overlaps.audited_patch(records.decode(raw), split, pixel_size_m, channels)
    except (tf.errors.DataLossError, tf.errors.NotFoundError, ValueError) as error:
        why = why_damaged(shard) or " ".join(str(error).split())
        raise DataError(
            f"{shard}: not a whole shard of patches: {why}; build the version again", "bad_shard"
        ) from error
