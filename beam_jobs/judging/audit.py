"""Audit: do unlabeled train patches show ground on which labelled eval and test patches are judged?

Input: version directories of pairs and of labels. Output: an AuditReport, as JSON an
artifact of the run. Called by `python -m beam_jobs audit`. Shards are streamed: what is
held are the Sights of the labelled eval and test patches.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import tensorflow as tf

from beam_jobs.contracts import layout, manifest, records, settings
from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.locations import locate
from beam_jobs.errors import DataError
from beam_jobs.judging import overlaps
from beam_jobs.judging.overlaps import Overlap, Sight

MAX_HASH_DISTANCE = 6
"""Most bits of 128 in which hashes of the same pixels may differ: rounding to 0.05 dB and 10 % more light change up to 3,
another date of the same place 8 or more, and no two places of real and simulated
patches differed in fewer than 39."""
MAX_LISTED = 10_000
"""Most overlaps that a report lists, so that a wholly leaking set does not fill the memory; all are counted."""

_BATCH = 512
"""Unlabeled patches compared at a time."""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes:
        pairs: version directories of unlabeled pairs.
        labels: version directories of labelled patches.
        manifests_sha256: version directory -> hash of its manifest.
        buffer_m: patches closer than this count as overlapping.
        max_hash_distance: of hashes that count as alike.
        num_pair_patches: unlabeled train patches.
        num_label_patches: labelled eval and test patches.
        num_pair_patches_without_hash: of them, compared by place only: too little
            texture, or a block without data.
        num_label_patches_without_hash: likewise.
        num_footprint_overlaps: overlaps by place.
        num_hash_overlaps: overlaps by looks.
        num_overlaps: by either.
        num_leaking_pair_patches: unlabeled train patches with an overlap: what to leave
            out.
        overlaps: the first MAX_LISTED of them.
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
        """What was found, in one line."""
        compared = f"{self.num_pair_patches} unlabeled train patches"
        judged = f"{self.num_label_patches} labelled eval and test patches"
        if not self.num_overlaps:
            return f"{compared}, {judged}: no overlap"
        first = self.overlaps[0]
        return (
            f"{self.num_leaking_pair_patches} of {compared} overlap {judged.partition(' ')[2]} "
            f"({self.num_footprint_overlaps} times by footprint, {self.num_hash_overlaps} by looks); "
            f"the first is {first.pair_patch_id} on {first.label_patch_id} of {first.label_split}"
        )

    def to_json(self) -> str:
        """Indented JSON, keys sorted."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> AuditReport:
    """The report of `AuditReport.to_json`."""
    return settings.from_dict(AuditReport, json.loads(text), "audit")


def audit(
    pairs: Sequence[str | os.PathLike[str]],
    labels: Sequence[str | os.PathLike[str]],
    buffer_m: float = 0.0,
    max_hash_distance: int = MAX_HASH_DISTANCE,
) -> AuditReport:
    """Compares every unlabeled train patch with every labelled eval and test patch.

    Args:
        pairs: version directories, or roots: of a root the newest version of each span.
        labels: likewise.
        buffer_m: patches closer than this count as overlapping; patches side by side do
            not at 0.
        max_hash_distance: of hashes that count as alike, 0-127.

    Raises:
        DataError: a directory is no version, of the wrong kind, without a patch, or
            shares no band with the others.
    """
    return compare(_versions(pairs), _versions(labels), buffer_m, max_hash_distance)


def compare(
    pair_versions: Mapping[str, manifest.Manifest],
    label_versions: Mapping[str, manifest.Manifest],
    buffer_m: float = 0.0,
    max_hash_distance: int = MAX_HASH_DISTANCE,
) -> AuditReport:
    """The audit of versions that are known: version directory, which may be in an object store -> its manifest.

    Raises:
        DataError: as `audit`.
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
                raise DataError(f"{path}: holds {read.kind!r}, needed are {kind!r}", "wrong_kind")
    manifests = [*pair_versions.values(), *label_versions.values()]
    common = {sensor: _common_bands(manifests, sensor) for sensor in BANDS}
    index = overlaps.Index(
        _sights(label_versions, ("eval", "test"), common), buffer_m, max_hash_distance
    )
    listed: list[Overlap] = []
    num_patches = num_without_hash = num_near = num_alike = num_overlaps = num_leaking = 0
    patches = _sights(pair_versions, ("train",), common)
    while batch := list(itertools.islice(patches, _BATCH)):
        num_patches += len(batch)
        num_without_hash += sum(patch.hash is None for patch in batch)
        for found in index.overlaps(batch):
            num_overlaps += len(found)
            num_near += sum(overlap.footprints_overlap for overlap in found)
            num_alike += sum(overlap.hash_distance is not None for overlap in found)
            num_leaking += bool(found)
            listed.extend(found[: MAX_LISTED - len(listed)])
    # Nothing compared is no proof of no overlap.
    for number, where in ((num_patches, pair_versions), (len(index.sights), label_versions)):
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
        num_label_patches=len(index.sights),
        num_pair_patches_without_hash=num_without_hash,
        num_label_patches_without_hash=sum(patch.hash is None for patch in index.sights),
        num_footprint_overlaps=num_near,
        num_hash_overlaps=num_alike,
        num_overlaps=num_overlaps,
        num_leaking_pair_patches=num_leaking,
        overlaps=tuple(listed),
    )


def _versions(paths: Sequence[str | os.PathLike[str]]) -> dict[str, manifest.Manifest]:
    """The versions that `paths` name, with their manifests."""
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
    """Bands that all versions hold: a hash of other bands would be of another image."""
    sets = [set(m.bands(sensor)) for m in manifests]
    common = [name for name in BANDS[sensor] if all(name in names for names in sets)]
    if not common:
        raise DataError(f"pairs and labels share no band of {sensor}", "no_common_band")
    return common


def _sights(
    versions: Mapping[str, manifest.Manifest],
    splits: Sequence[str],
    common: dict[Sensor, list[str]],
) -> Iterator[Sight]:
    """The Sight of every patch, one shard after the other."""
    for path, found in versions.items():
        channels = {
            sensor: [found.bands(sensor).index(name) for name in names]
            for sensor, names in common.items()
        }
        for split in splits:
            # Those of the manifest: a shard that is gone must not pass as one that held
            # nothing.
            for name in sorted(name for name in found.shards if name.startswith(f"{split}/")):
                yield from _read_shard(f"{path}/{name}", split, found.pixel_size_m, channels)


def _read_shard(
    shard: str, split: str, pixel_size_m: float, channels: Mapping[Sensor, list[int]]
) -> Iterator[Sight]:
    try:
        for raw in tf.data.TFRecordDataset(shard, compression_type="GZIP").as_numpy_iterator():
            yield overlaps.sight(records.decode(raw), split, pixel_size_m, channels)
    except (tf.errors.DataLossError, tf.errors.NotFoundError, ValueError) as error:
        raise DataError(f"{shard}: not a whole shard of patches: {error}", "bad_shard") from error
