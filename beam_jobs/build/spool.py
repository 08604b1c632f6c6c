"""The spool: encoded patches between cutting and sharding, one file per task, with an index beside it.

It lies beside the output, on an object store too, where all machines of a job see it;
or in a folder that the user names. Only references travel through Beam, never pixels. A
task, a strip of a large pair or a bundle of small pairs, whose index exists is
finished: a job that was killed reads it instead of cutting again. `transforms.py`
writes, `writers.py` reads.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from beam_jobs.build import shard_sizes
from beam_jobs.build.patches import Rejection
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import records
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.records import LabeledPatch, PairedPatch
from beam_jobs.data_card.statistics import BandSums
from beam_jobs.storage import files

_INDEX_SUFFIX = ".index"


@dataclass(frozen=True, kw_only=True)
class PatchRef:
    """Where an encoded patch lies in the spool, and what tells whether it is a duplicate.

    Attributes:
        patch_id: of the patch.
        split: it goes to.
        path: of the file.
        offset: of its first byte.
        num_bytes: of the serialized tf.Example.
        pair: hash of the ids of its scenes.
        lon: of its centre, degrees.
        lat: of its centre, degrees.
        s1_acquired_at: seconds since 1970, UTC.
        s2_acquired_at: seconds since 1970, UTC.
        quality: score of the patch.
        gzip_bytes: size when compressed, of a few patches only.
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


@dataclass(kw_only=True)
class CutResult:
    """What came of one task, or what a duplicate takes away again.

    Attributes:
        refs: patches that are kept.
        rejections: patches that are not, or the scene when it broke a rule.
        s1_sums: over the patches of the train split; None when there is none.
        s2_sums: likewise.
        num_pixels_per_class: (split, label id) -> pixels.
    """

    refs: list[PatchRef] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    s1_sums: BandSums | None = None
    s2_sums: BandSums | None = None
    num_pixels_per_class: Counter[tuple[str, int]] = field(default_factory=Counter)


class Writer:
    """Writes the patches of one task; `finish` makes them visible, `abandon` leaves nothing.

    In a bundle each pair ends with `commit` or, when a file of it cannot be read, with
    `drop`.
    """

    def __init__(
        self, spool_dir: str, task_id: str, config: BuildConfig, num_pairs: int = 1
    ) -> None:
        self._data, self._index = _paths(spool_dir, task_id, num_pairs)
        self._file = files.StagedFile(self._data)
        self._config = config
        self._result, self._pending = CutResult(), CutResult()

    def add(self, outcome: tuple[str, PairedPatch] | Rejection) -> None:
        """Takes what `patches.cut` yields."""
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
        # Of what the shards hold, after rounding: a duplicate can then be taken out
        # again exactly.
        _count(self._pending, split, records.decode(serialized), self._config)

    def commit(self) -> None:
        """Takes over what was added since the last call."""
        self._result.refs += self._pending.refs
        self._result.rejections += self._pending.rejections
        self._result.s1_sums = merge_sums(self._result.s1_sums, self._pending.s1_sums)
        self._result.s2_sums = merge_sums(self._result.s2_sums, self._pending.s2_sums)
        self._result.num_pixels_per_class.update(self._pending.num_pixels_per_class)
        self._pending = CutResult()

    def drop(self) -> None:
        """Forgets what was added since the last `commit`; its bytes stay in the file, and nothing refers to them."""
        self._pending = CutResult()

    def finish(self) -> CutResult:
        """Shows the data, then the index: the index's presence says that both are whole."""
        self.commit()
        self._file.commit()
        # Histograms are mostly zeros; level 1 shrinks them a hundredfold.
        files.write_bytes(self._index, gzip.compress(pickle.dumps(self._result), compresslevel=1))
        return self._result

    def abandon(self) -> None:
        """Removes what was written."""
        self._file.abandon()


def merge_sums(one: BandSums | None, two: BandSums | None) -> BandSums | None:
    """The sums over both, where None is over nothing."""
    if one is None or two is None:
        return two if one is None else one
    return one.merge(two)


def uncounted(ref: PatchRef, config: BuildConfig) -> CutResult:
    """A CutResult that takes a patch out of the sums again when it is merged with the one that counted it."""
    (serialized,) = read([ref])
    counted = CutResult()
    _count(counted, ref.split, records.decode(serialized), config)
    return CutResult(
        s1_sums=counted.s1_sums.negated() if counted.s1_sums else None,
        s2_sums=counted.s2_sums.negated() if counted.s2_sums else None,
        num_pixels_per_class=Counter(
            {key: -count for key, count in counted.num_pixels_per_class.items()}
        ),
    )


def _count(result: CutResult, split: str, patch: PairedPatch, config: BuildConfig) -> None:
    if split == "train":
        if result.s1_sums is None or result.s2_sums is None:
            result.s1_sums = BandSums.zeros(len(config.patch.s1_bands))
            result.s2_sums = BandSums.zeros(len(config.patch.s2_bands))
        result.s1_sums.add(patch.s1, "s1")
        result.s2_sums.add(patch.s2, "s2")
    if isinstance(patch, LabeledPatch):
        ids, counts = np.unique(patch.label, return_counts=True)
        for label_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if label_id != IGNORE:
                result.num_pixels_per_class[split, label_id] += count


def load(spool_dir: str, task_id: str, num_pairs: int = 1) -> CutResult | None:
    """The finished result of a task, or None."""
    _, index = _paths(spool_dir, task_id, num_pairs)
    if not files.exists(index):
        return None
    result = pickle.loads(gzip.decompress(files.read_bytes(index)))
    if not isinstance(result, CutResult):
        raise ValueError(f"{index}: expected a CutResult, got {type(result).__name__}")
    return result


def count_finished(spool_dir: str) -> int:
    """Number of strips and bundled pairs that are finished; for progress bars."""
    names = files.list_names(spool_dir, _INDEX_SUFFIX)
    return sum(int(name.removesuffix(_INDEX_SUFFIX).rpartition("-")[2]) for name in names)


def read(refs: Iterable[PatchRef]) -> Iterable[bytes]:
    """The encoded patches of `refs`, in that order, one at a time."""
    for ref in refs:
        yield files.read_range(ref.path, ref.offset, ref.num_bytes)


def _paths(spool_dir: str, task_id: str, num_pairs: int) -> tuple[str, str]:
    # The number is in the name, so that progress can be told without opening a file.
    name = f"{hashlib.sha256(task_id.encode()).hexdigest()[:24]}-{num_pairs}"
    return f"{spool_dir}/{name}.data", f"{spool_dir}/{name}{_INDEX_SUFFIX}"
