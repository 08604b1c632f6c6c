"""Where the records of a split come from: gzipped shards, inflated copies, or memory.

Input: files and the features to read. Output: a `RecordSource`. It gives a key for each
record of a shard, so that shuffling moves keys and not pixels, and the features of a
batch of keys. All sources give the same records in the same order: a cache changes only
the speed of a training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from beam_jobs.contracts import locations
from models.config import InputConfig
from models.reading import free_memory, inflated_shards

Columns = dict[str, tf.Tensor]
"""Features of a batch of records, from `tf.io.parse_example`: pixels are bytes."""

FeatureSpec = Mapping[str, tf.io.FixedLenFeature]

READ_BUFFER_BYTES = 1 << 20
"""Bytes to read ahead per open file, so that an object store gets few requests."""
MAX_MEMORY_SHARE = 0.8
"""Largest share of the free memory for a cache; activations need the rest."""


class RecordSource(Protocol):
    """Records by shard.

    Attributes:
        num_shards: the shards are numbered from 0.
    """

    @property
    def num_shards(self) -> int:
        """See the class."""
        ...

    def keys(self, shard: tf.Tensor) -> tf.data.Dataset:
        """Return the keys (scalars) of a shard's records, in the order of its file.

        `shard` is the number of the shard, int64 [].
        """
        ...

    def fetch(self, keys: tf.Tensor) -> Columns:
        """Return the features of the records with these keys [B]."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """TFRecord files; the key of a record is the serialized record itself."""

    files: tuple[str, ...]
    compression: str
    spec: FeatureSpec

    @property
    def num_shards(self) -> int:
        """One per file."""
        return len(self.files)

    def keys(self, shard: tf.Tensor) -> tf.data.Dataset:
        """See RecordSource."""
        return tf.data.TFRecordDataset(
            tf.gather(list(self.files), shard), self.compression, READ_BUFFER_BYTES
        )

    def fetch(self, keys: tf.Tensor) -> Columns:
        """See RecordSource."""
        return dict(tf.io.parse_example(keys, dict(self.spec)))


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Features of all records in memory; the key of a record is its row.

    Attributes:
        columns: features [N, ...], the shards one after the other.
        starts: int64 [num_shards + 1], first row of each shard, then N.
    """

    columns: Columns
    starts: tf.Tensor

    @property
    def num_shards(self) -> int:
        """See RecordSource."""
        return int(self.starts.shape[0]) - 1

    def keys(self, shard: tf.Tensor) -> tf.data.Dataset:
        """See RecordSource."""
        return tf.data.Dataset.range(self.starts[shard], self.starts[shard + 1])

    def fetch(self, keys: tf.Tensor) -> Columns:
        """See RecordSource."""
        return {name: tf.gather(column, keys) for name, column in self.columns.items()}


def open_source(files: Sequence[str], spec: FeatureSpec, reading: InputConfig) -> RecordSource:
    """Return the records of `files` (gzip TFRecords) through the configured cache.

    The cache is filled here.

    Raises:
        ValueError: the records do not fit into memory, or a file is cut short.
        OSError: the disk cache cannot be written.
    """
    if reading.cache == "disk":
        return FileSource(
            files=inflated_shards.inflate(files, reading.cache_dir), compression="", spec=spec
        )
    source = FileSource(files=tuple(files), compression="GZIP", spec=spec)
    if reading.cache == "memory":
        return load(source, int(MAX_MEMORY_SHARE * free_memory.count_bytes()))
    return source


def load(source: FileSource, max_bytes: int) -> MemorySource:
    """Read the features of all records of `source` into memory.

    Raises:
        ValueError: they need more than `max_bytes`, estimated by the first file and the
            sizes of all files.
    """
    shards = tf.data.Dataset.range(source.num_shards)
    first, _ = _read_rows(source, shards.take(1))
    sizes = [locations.size(path) or 0 for path in source.files]
    num_bytes = int(sum(_num_bytes(column) for column in first.values()) * sum(sizes) / sizes[0])
    if num_bytes > max_bytes:
        raise ValueError(
            f"input.cache: memory must fit into {max_bytes / 2**20:,.1f} MiB, "
            f"{MAX_MEMORY_SHARE:.0%} of what is free, got {source.num_shards} files of about "
            f"{num_bytes / 2**20:,.1f} MiB: choose disk or none"
        )
    columns, shard_of_row = _read_rows(source, shards)
    starts = np.searchsorted(shard_of_row.numpy(), np.arange(source.num_shards + 1))
    return MemorySource(columns=columns, starts=tf.constant(starts, tf.int64))


def _read_rows(source: FileSource, shards: tf.data.Dataset) -> tuple[Columns, tf.Tensor]:
    """Return the features of all records of `shards`, and each row's shard number."""

    def rows(shard: tf.Tensor) -> tf.data.Dataset:
        return source.keys(shard).map(
            lambda key: (tf.io.parse_single_example(key, dict(source.spec)), shard)
        )

    # Whole shards, one after the other; several are read ahead.
    records = shards.interleave(
        rows,
        block_length=np.iinfo(np.int64).max // 2,
        cycle_length=4,
        num_parallel_calls=4,
        deterministic=True,
    )
    # One batch of everything. Concatenating parts would hold all records twice.
    columns, shard_of_row = records.batch(np.iinfo(np.int64).max).get_single_element()
    return columns, shard_of_row


def _num_bytes(column: tf.Tensor) -> int:
    if column.dtype == tf.string:
        return int(tf.reduce_sum(tf.strings.length(column)))
    return int(tf.size(column)) * int(column.dtype.size)
