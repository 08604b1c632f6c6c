"""Where the records of a split come from: gzipped shards, inflated copies of them on disk, or memory.

Input: files and the features to read. Output: a RecordSource: keys of the records of
each shard, which are put in order at no cost, and the features behind a batch of keys.
All sources give the same records in the same order, so a cache changes the speed of a
training and nothing else. Called by `input_pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from models.config import InputConfig
from models.reading import free_memory, inflated_shards

Columns = dict[str, tf.Tensor]
"""Features of a batch of records, as `tf.io.parse_example` gives them: pixels are still bytes."""

FeatureSpec = Mapping[str, tf.io.FixedLenFeature]

READ_BUFFER_BYTES = 1 << 20
"""Read ahead per open file: a few records, so that a disk or an object store sees few requests."""
MAX_MEMORY_SHARE = 0.8
"""Of the free memory that a cache may take: the rest is for the activations, which are allocated later."""


class RecordSource(Protocol):
    """Records by shard.

    Attributes:
        num_shards: shards have the numbers below it.
    """

    @property
    def num_shards(self) -> int:
        """See the class."""
        ...

    def keys(self, shard: tf.Tensor) -> tf.data.Dataset:
        """Keys (scalars) of the records of a shard, int64 [], in the order of its file."""
        ...

    def fetch(self, keys: tf.Tensor) -> Columns:
        """Features of the records with these keys [B]."""
        ...


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """TFRecord files; the key of a record is the serialized record."""

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
    """Features of all records, held; the key of a record is its row.

    Attributes:
        columns: each [N, ...], the shards one after the other.
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
    """The records of `files`, gzip TFRecords, through the cache that `reading` asks for; it is filled here.

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
    """Reads all records of `source` into memory, only the features that its spec names.

    Raises:
        ValueError: they need more than `max_bytes`, as seen from the first file and the
            sizes of all.
    """
    shards = tf.data.Dataset.range(source.num_shards)
    first, _ = _read_rows(source, shards.take(1))
    sizes = [tf.io.gfile.stat(path).length for path in source.files]
    num_bytes = int(sum(_num_bytes(column) for column in first.values()) * sum(sizes) / sizes[0])
    if num_bytes > max_bytes:
        raise ValueError(
            f"input.cache: memory must fit into {max_bytes / 2**20:,.1f} MiB, {MAX_MEMORY_SHARE:.0%} of what is free, got "
            f"{source.num_shards} files of about {num_bytes / 2**20:,.1f} MiB: choose disk or none"
        )
    columns, shard_of_row = _read_rows(source, shards)
    starts = np.searchsorted(shard_of_row.numpy(), np.arange(source.num_shards + 1))
    return MemorySource(columns=columns, starts=tf.constant(starts, tf.int64))


def _read_rows(source: FileSource, shards: tf.data.Dataset) -> tuple[Columns, tf.Tensor]:
    """Features of all records of `shards`, and the number of each row's shard, ascending."""

    def rows(shard: tf.Tensor) -> tf.data.Dataset:
        return source.keys(shard).map(
            lambda key: (tf.io.parse_single_example(key, dict(source.spec)), shard)
        )

    # Whole shards after one another, several read ahead at a time.
    records = shards.interleave(
        rows,
        block_length=np.iinfo(np.int64).max // 2,
        cycle_length=4,
        num_parallel_calls=4,
        deterministic=True,
    )
    # One batch of all: the elements move into it, a concatenation of parts would hold
    # them twice.
    columns, shard_of_row = records.batch(np.iinfo(np.int64).max).get_single_element()
    return columns, shard_of_row


def _num_bytes(column: tf.Tensor) -> int:
    if column.dtype == tf.string:
        return int(tf.reduce_sum(tf.strings.length(column)))
    return int(tf.size(column)) * int(column.dtype.size)
