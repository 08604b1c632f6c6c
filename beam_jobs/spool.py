"""The spool: encoded patches between cutting and sharding, one file per strip, with an index beside it.

It lies beside the output, on an object store too, where all machines of a job see it; or in a folder that the user names.
Only references travel through Beam, never pixels. A strip whose index exists is finished: a job that was killed reads it
instead of cutting again. `transforms.py` writes, `writers.py` reads.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from beam_jobs import storage
from beam_jobs.config import BuildConfig
from beam_jobs.contracts import records
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.records import LabeledPatch, PairedPatch
from beam_jobs.patches import Rejection
from beam_jobs.statistics import BandSums


@dataclass(frozen=True, kw_only=True)
class PatchRef:
    """Where an encoded patch lies in the spool."""

    patch_id: str
    split: str
    path: str
    offset: int
    num_bytes: int


@dataclass(kw_only=True)
class CutResult:
    """What came of one strip.

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
    """Writes the patches of one strip; `finish` makes them visible, `abandon` leaves nothing."""

    def __init__(self, spool_dir: str, task_id: str, config: BuildConfig) -> None:
        self._data, self._index = _paths(spool_dir, task_id)
        self._file = storage.StagedFile(self._data)
        self._config = config
        self._result = CutResult()

    def add(self, outcome: tuple[str, PairedPatch] | Rejection) -> None:
        """Takes what `patches.cut` yields."""
        if isinstance(outcome, Rejection):
            self._result.rejections.append(outcome)
            return
        split, patch = outcome
        serialized = records.encode(patch)
        offset = self._file.tell()
        self._file.write(serialized)
        self._result.refs.append(
            PatchRef(
                patch_id=patch.patch_id,
                split=split,
                path=self._data,
                offset=offset,
                num_bytes=len(serialized),
            )
        )
        if split == "train":
            self._count_pixels(patch)
        if isinstance(patch, LabeledPatch):
            ids, counts = np.unique(patch.label, return_counts=True)
            for label_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
                if label_id != IGNORE:
                    self._result.num_pixels_per_class[split, label_id] += count

    def finish(self) -> CutResult:
        """Shows the data, then the index: the index's presence says that both are whole."""
        self._file.commit()
        # Histograms are mostly zeros; level 1 shrinks them a hundredfold.
        storage.write_bytes(self._index, gzip.compress(pickle.dumps(self._result), compresslevel=1))
        return self._result

    def abandon(self) -> None:
        """Removes what was written."""
        self._file.abandon()

    def _count_pixels(self, patch: PairedPatch) -> None:
        if self._result.s1_sums is None or self._result.s2_sums is None:
            self._result.s1_sums = BandSums.zeros(len(self._config.patch.s1_bands))
            self._result.s2_sums = BandSums.zeros(len(self._config.patch.s2_bands))
        self._result.s1_sums.add(patch.s1, "s1")
        self._result.s2_sums.add(patch.s2, "s2")


def load(spool_dir: str, task_id: str) -> CutResult | None:
    """The finished result of a strip, or None."""
    _, index = _paths(spool_dir, task_id)
    if not storage.exists(index):
        return None
    result = pickle.loads(gzip.decompress(storage.read_bytes(index)))
    if not isinstance(result, CutResult):
        raise ValueError(f"{index}: expected a CutResult, got {type(result).__name__}")
    return result


def count_finished(spool_dir: str) -> int:
    """Number of strips that are finished; for progress bars."""
    return storage.count_files(spool_dir, ".index")


def read(refs: Iterable[PatchRef]) -> Iterable[bytes]:
    """The encoded patches of `refs`, in that order, one at a time."""
    for ref in refs:
        yield storage.read_range(ref.path, ref.offset, ref.num_bytes)


def _paths(spool_dir: str, task_id: str) -> tuple[str, str]:
    name = hashlib.sha256(task_id.encode()).hexdigest()[:24]
    return f"{spool_dir}/{name}.data", f"{spool_dir}/{name}.index"
