"""Shard sizes: how many shards a split needs to reach the wanted size per shard.

Input: the size of each patch. Output: a number of shards, known before the first byte
of a shard is written. The number must not depend on workers or on the order of patches.
So it comes from sums over all patches: their size in the spool, times the compression
ratio of a fixed sample of them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam

_SAMPLE = 32
"""One patch in this many is compressed to learn the ratio.

This adds 3 % to the time that the compression of all patches takes.
"""


@dataclass(kw_only=True)
class Volume:
    """Sizes of one or more patches.

    Attributes:
        num_examples: number of patches.
        num_bytes: size of all patches before gzip.
        sampled_bytes: size of the sampled patches before gzip.
        sampled_gzip_bytes: size of the sampled patches after gzip.
    """

    num_examples: int = 0
    num_bytes: int = 0
    sampled_bytes: int = 0
    sampled_gzip_bytes: int = 0

    @classmethod
    def of_patch(cls, num_bytes: int, gzip_bytes: int | None) -> Volume:
        """Return the volume of one patch.

        Args:
            num_bytes: size of the serialized patch.
            gzip_bytes: result of `sampled_gzip_bytes`.
        """
        if gzip_bytes is None:
            return cls(num_examples=1, num_bytes=num_bytes)
        return cls(
            num_examples=1,
            num_bytes=num_bytes,
            sampled_bytes=num_bytes,
            sampled_gzip_bytes=gzip_bytes,
        )

    def num_shards(self, target_mb: float, num_examples_per_shard: int | None) -> int:
        """Return how many shards to write, at least 1.

        Without a sample the patches count as incompressible. The shards of a small
        split are then smaller than wanted.

        Args:
            target_mb: about the largest size of a shard on disk, in 10^6 bytes.
            num_examples_per_shard: about the most examples in a shard; None = no limit.
        """
        ratio = self.sampled_gzip_bytes / self.sampled_bytes if self.sampled_bytes else 1.0
        by_size = math.ceil(self.num_bytes * ratio / (target_mb * 1e6))
        by_number = (
            math.ceil(self.num_examples / num_examples_per_shard) if num_examples_per_shard else 1
        )
        return max(by_size, by_number, 1)


def sampled_gzip_bytes(patch_id: str, serialized: bytes) -> int | None:
    """Return the compressed size of a sampled patch, and None for all other patches.

    The patch id alone decides whether a patch is in the sample. The compression level
    is that of TFRecordWriter.
    """
    if int(patch_id[-8:], 16) % _SAMPLE:
        return None
    return len(zlib.compress(serialized))


class SumVolumes(beam.CombineFn):
    """Add up Volumes; they are integers, so the order does not change the sum."""

    def create_accumulator(self) -> Volume:
        """Return an empty Volume."""
        return Volume()

    def add_input(self, total: Volume, volume: Volume) -> Volume:
        """Return the sum of both."""
        return self.merge_accumulators((total, volume))

    def merge_accumulators(self, volumes: Iterable[Volume]) -> Volume:
        """Return the sum of all."""
        merged = Volume()
        for volume in volumes:
            merged.num_examples += volume.num_examples
            merged.num_bytes += volume.num_bytes
            merged.sampled_bytes += volume.sampled_bytes
            merged.sampled_gzip_bytes += volume.sampled_gzip_bytes
        return merged

    def extract_output(self, volume: Volume) -> Volume:
        """Return the sum unchanged."""
        return volume
