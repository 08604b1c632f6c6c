"""The spool: encoded patches between cutting and sharding.

Each task (strips of a large pair, or a bundle of small pairs) writes one data file and
one index file. Only references to patches travel through Beam, never pixels. The spool
lies beside the output or in a folder that the user names; all machines of a job must
see it. A task whose index exists is finished: a job that continues after a kill reads
the index instead of cutting the task again.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from beam_jobs.build import shard_sizes, stored
from beam_jobs.build.patches import Outcome, OutOfRange, Rejection
from beam_jobs.build.shard_sizes import Volume
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import records
from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.records import LabeledPatch, PairedPatch
from beam_jobs.data_card.statistics import BandSums
from beam_jobs.storage import files

_INDEX_SUFFIX = ".index"
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PatchRef:
    """A reference to an encoded patch in the spool.

    It also holds what decides whether the patch is a duplicate.

    Attributes:
        patch_id: id of the patch.
        split: split of the patch.
        path: data file that holds the patch.
        offset: position of its first byte in the file.
        num_bytes: size of the serialized tf.Example.
        pair: hash of the ids of its two scenes.
        lon: longitude of its centre, degrees.
        lat: latitude of its centre, degrees.
        s1_acquired_at: seconds since 1970, UTC.
        s2_acquired_at: seconds since 1970, UTC.
        quality: quality score of the patch, 0-1.
        gzip_bytes: compressed size of a sampled patch; None for all others. See
            `shard_sizes.sampled_gzip_bytes`.
    """

    patch_id: str
    split: str
    path: str
    offset: int
    num_bytes: int
    pair: str
    lon: float
    lat: float
    s1_acquired_at: int
    s2_acquired_at: int
    quality: float
    gzip_bytes: int | None = None

    @property
    def volume(self) -> Volume:
        """Size of the patch, for the number of shards."""
        return Volume.of_patch(self.num_bytes, self.gzip_bytes)


@dataclass(kw_only=True)
class CutResult:
    """The result of one task, or what is subtracted again for a duplicate.

    Attributes:
        refs: the patches that are kept.
        rejections: the patches that are not kept, or the scene that breaks a rule.
        band_sums: per sensor, the sums over the patches of the train split; empty when
            there is no such patch.
        num_pixels_per_class: (split, label id) -> number of pixels.
        num_out_of_range: (sensor, band) -> number of pixels out of range.
    """

    refs: list[PatchRef] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    band_sums: dict[Sensor, BandSums] = field(default_factory=dict)
    num_pixels_per_class: Counter[tuple[str, int]] = field(default_factory=Counter)
    num_out_of_range: Counter[tuple[Sensor, str]] = field(default_factory=Counter)


class Writer:
    """Write the patches of one task.

    `finish` makes them visible; `abandon` removes them. In a bundle each pair ends with
    `commit`, or with `drop` when one of its files cannot be read.
    """

    def __init__(
        self, spool_dir: str, task_id: str, config: BuildConfig, num_pairs: int = 1
    ) -> None:
        self._data, self._index = _paths(spool_dir, task_id, num_pairs)
        self._file = files.StagedFile(self._data)
        self._config = config
        self._result, self._pending = CutResult(), CutResult()

    def add(self, outcome: Outcome) -> None:
        """Add one outcome of `patches.cut`."""
        if isinstance(outcome, OutOfRange):
            self._pending.num_out_of_range.update(outcome.num_pixels)
            return
        if isinstance(outcome, Rejection):
            self._pending.rejections.append(outcome)
            return
        split, patch = outcome
        serialized = records.encode(patch)
        offset = self._file.tell()
        self._file.write(serialized)
        self._pending.refs.append(
            PatchRef(
                patch_id=patch.patch_id,
                split=split,
                path=self._data,
                offset=offset,
                num_bytes=len(serialized),
                pair=hashlib.sha256(
                    f"{patch.s1_scene_id}|{patch.s2_scene_id}".encode()
                ).hexdigest()[:12],
                lon=patch.lon,
                lat=patch.lat,
                s1_acquired_at=patch.s1_acquired_at,
                s2_acquired_at=patch.s2_acquired_at,
                quality=patch.quality,
                gzip_bytes=shard_sizes.sampled_gzip_bytes(patch.patch_id, serialized),
            )
        )
        # The sums are over the decoded (rounded) values that the shards hold. So the
        # values of a duplicate can be subtracted exactly.
        _count(self._pending, split, records.decode(serialized), self._config)

    def commit(self) -> None:
        """Keep what was added since the last `commit` or `drop`."""
        self._result.refs += self._pending.refs
        self._result.rejections += self._pending.rejections
        self._result.band_sums = merge_sums(self._result.band_sums, self._pending.band_sums)
        self._result.num_pixels_per_class.update(self._pending.num_pixels_per_class)
        self._result.num_out_of_range.update(self._pending.num_out_of_range)
        self._pending = CutResult()

    def drop(self) -> None:
        """Forget what was added since the last `commit`.

        The bytes stay in the data file, but nothing refers to them.
        """
        self._pending = CutResult()

    def finish(self) -> CutResult:
        """Make the data file visible, then the index, which marks the task finished."""
        self.commit()
        self._file.commit()
        files.write_bytes(self._index, stored.pack(self._result))
        return self._result

    def abandon(self) -> None:
        """Remove what was written."""
        self._file.abandon()


def merge_sums(
    one: Mapping[Sensor, BandSums], two: Mapping[Sensor, BandSums]
) -> dict[Sensor, BandSums]:
    """Return the sums over both, per sensor."""
    merged = {**one, **two}
    for sensor in one.keys() & two.keys():
        merged[sensor] = one[sensor].merge(two[sensor])
    return merged


def uncounted(ref: PatchRef, config: BuildConfig) -> CutResult:
    """Return a CutResult that subtracts a patch from the sums it is merged with."""
    (serialized,) = read([ref])
    counted = CutResult()
    _count(counted, ref.split, records.decode(serialized), config)
    return CutResult(
        band_sums={sensor: sums.negated() for sensor, sums in counted.band_sums.items()},
        num_pixels_per_class=Counter(
            {key: -count for key, count in counted.num_pixels_per_class.items()}
        ),
    )


def _count(result: CutResult, split: str, patch: PairedPatch, config: BuildConfig) -> None:
    """Add the pixels of a patch to the sums of `result`."""
    if split == "train":
        for sensor in SENSORS:
            if sensor not in result.band_sums:
                result.band_sums[sensor] = BandSums.zeros(len(config.patch.bands(sensor)))
            result.band_sums[sensor].add(patch.pixels(sensor), sensor)
    if isinstance(patch, LabeledPatch):
        ids, counts = np.unique(patch.label, return_counts=True)
        for label_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if label_id != IGNORE:
                result.num_pixels_per_class[split, label_id] += count


def load(spool_dir: str, task_id: str, num_pairs: int = 1) -> CutResult | None:
    """Return the result of a finished task, or None when it is not finished.

    An index of another format, such as the pickles of early versions, or one that is
    cut short counts as not finished: the task is cut again.
    """
    _, index = _paths(spool_dir, task_id, num_pairs)
    if not files.exists(index):
        return None
    try:
        return stored.unpack(CutResult, files.read_bytes(index))
    except ValueError as error:
        _LOGGER.warning("%s: is made again: %s", index, error)
        return None


def count_finished(spool_dir: str) -> int:
    """Return how many tasks and bundled pairs are finished; for progress bars."""
    names = files.list_names(spool_dir, _INDEX_SUFFIX)
    return sum(int(name.removesuffix(_INDEX_SUFFIX).rpartition("-")[2]) for name in names)


def read(refs: Iterable[PatchRef]) -> Iterable[bytes]:
    """Yield the serialized tf.Example of each of `refs`, in that order."""
    for ref in refs:
        yield files.read_range(ref.path, ref.offset, ref.num_bytes)


def _paths(spool_dir: str, task_id: str, num_pairs: int) -> tuple[str, str]:
    """Return the paths of the data file and the index file of a task."""
    # `count_finished` reads the number of pairs from the name, without opening a file.
    name = f"{hashlib.sha256(task_id.encode()).hexdigest()[:24]}-{num_pairs}"
    return f"{spool_dir}/{name}.data", f"{spool_dir}/{name}{_INDEX_SUFFIX}"
