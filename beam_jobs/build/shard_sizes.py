"""Shard sizes: how many shards a split needs for the size one wants, known before a byte of them is written.

The number must not depend on workers or on the order of patches, so it comes from sums
over all patches: their bytes as they lie in the spool, times how far a fixed sample of
them shrinks. `spool.py` measures, `writers.py` asks.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apache_beam as beam

if TYPE_CHECKING:
    from beam_jobs.build.spool import PatchRef

_SAMPLE = 32
"""One patch in so many is deflated once more to learn its ratio: 3 % of the time that compressing takes."""


@dataclass(kw_only=True)
class Volume:
    """What is to be written.

    Attributes:
        num_examples: patches.
        num_bytes: of all, as they are before gzip.
        sampled_bytes: of the sampled ones before gzip.
        sampled_gzip_bytes: of the sampled ones after it.
    """

    num_examples: int = 0
    num_bytes: int = 0
    sampled_bytes: int = 0
    sampled_gzip_bytes: int = 0

    def num_shards(self, target_mb: float, num_examples_per_shard: int | None) -> int:
        """Shards of at most about `target_mb` million bytes and `num_examples_per_shard` examples; at least 1.

        Without a sample patches count as incompressible: the shards of a small split
        are then smaller than asked for.
        """
        ratio = self.sampled_gzip_bytes / self.sampled_bytes if self.sampled_bytes else 1.0
        by_size = math.ceil(self.num_bytes * ratio / (target_mb * 1e6))
        by_number = (
            math.ceil(self.num_examples / num_examples_per_shard) if num_examples_per_shard else 1
        )
        return max(by_size, by_number, 1)


def sampled_gzip_bytes(patch_id: str, serialized: bytes) -> int | None:
    """Size of a sampled patch after deflate at TFRecord's own level; None for the others. Its id alone decides."""
    if int(patch_id[-8:], 16) % _SAMPLE:
        return None
    return len(zlib.compress(serialized))


class SumVolumes(beam.CombineFn):
    """PatchRefs -> their Volume. Whole numbers, so the order of the sum does not show."""

    def create_accumulator(self) -> Volume:
        """Nothing yet."""
        return Volume()

    def add_input(self, volume: Volume, ref: PatchRef) -> Volume:
        """One more patch."""
        is_sampled = ref.gzip_bytes is not None
        return self.merge_accumulators(
            (
                volume,
                Volume(
                    num_examples=1,
                    num_bytes=ref.num_bytes,
                    sampled_bytes=ref.num_bytes if is_sampled else 0,
                    sampled_gzip_bytes=ref.gzip_bytes or 0,
                ),
            )
        )

    def merge_accumulators(self, volumes: Iterable[Volume]) -> Volume:
        """Sums."""
        merged = Volume()
        for volume in volumes:
            merged.num_examples += volume.num_examples
            merged.num_bytes += volume.num_bytes
            merged.sampled_bytes += volume.sampled_bytes
            merged.sampled_gzip_bytes += volume.sampled_gzip_bytes
        return merged

    def extract_output(self, volume: Volume) -> Volume:
        """As it is."""
        return volume
