"""Epochs: which records make up which batch, in an order that can be repeated or by a tf.data service.

Input: a RecordSource and sizes. Output: endless batches of keys, or decoded ones from a
service; both leave out only what fills no batch at the end of an epoch. Called by
`input_pipeline.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from models.reading import data_service
from models.reading.record_source import RecordSource

NUM_PARALLEL_SHARDS = 8
"""Shards read at a time: enough to hide gzip behind training, few enough to keep buffers small."""

Decode = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
"""(number int64 [] that seeds what is random, keys [B]) -> batch."""


@dataclass(frozen=True, kw_only=True)
class EpochSizes:
    """How large an epoch and its parts are.

    Attributes:
        num_examples: in all shards together.
        batch_size: examples per step.
        shuffle_buffer: records held for shuffling.
    """

    num_examples: int
    batch_size: int
    shuffle_buffer: int

    def __post_init__(self) -> None:
        if self.num_examples < self.batch_size:
            raise ValueError(
                f"num_examples must be at least one batch of {self.batch_size}, got {self.num_examples}"
            )

    @property
    def num_steps(self) -> int:
        """Full batches of an epoch."""
        return self.num_examples // self.batch_size


def ordered_batches(
    source: RecordSource, sizes: EpochSizes, seed: int, first_step: int, is_deterministic: bool
) -> tf.data.Dataset:
    """Endless batches of keys, from that of the step after `first_step` on; each follows from `seed` and its step.

    What comes before within the epoch of `first_step` is read again, but not decoded;
    earlier epochs are not.
    """
    first_epoch, num_skipped = divmod(first_step, sizes.num_steps)

    # A dataset per epoch, not `repeat`: so each one's order follows from its number,
    # and a resumed run can begin with any.
    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        # Shards among each other, records within a buffer: together they mix records of
        # far-apart places.
        shards = tf.random.experimental.stateless_shuffle(
            tf.range(source.num_shards, dtype=tf.int64), epoch_seed
        )
        buffer_seed = tf.random.stateless_uniform(
            [], epoch_seed, minval=None, maxval=None, dtype=tf.int64
        )
        keys = _shuffled(
            read_shards(source, shards, is_deterministic), sizes.shuffle_buffer, buffer_seed
        )
        # Batches end with their epoch: across the seam of two a pair could meet its own
        # copy as a negative.
        batches = _checked(keys.batch(sizes.batch_size, drop_remainder=True), sizes)
        return batches.skip(tf.where(epoch == first_epoch, tf.constant(num_skipped, tf.int64), 0))

    return tf.data.Dataset.counter(first_epoch).flat_map(epoch_batches)


def served_batches(
    source: RecordSource, decode: Decode, sizes: EpochSizes, address: str
) -> tf.data.Dataset:
    """Endless batches from the tf.data service at `address`, whose workers share the shards of each epoch."""
    # A worker takes few shards at a time, or the first one that asks would take all.
    num_parallel = max(1, min(NUM_PARALLEL_SHARDS, source.num_shards // NUM_PARALLEL_SHARDS))

    def shuffled_keys(shard: tf.Tensor) -> tf.data.Dataset:
        buffer_size = max(1, sizes.shuffle_buffer // num_parallel)
        return _shuffled(source.keys(shard), buffer_size, data_service.fresh_seed())

    keys = tf.data.Dataset.range(source.num_shards).interleave(
        shuffled_keys, cycle_length=num_parallel
    )
    batches = keys.batch(sizes.batch_size).map(
        lambda keys: decode(data_service.fresh_seed(), keys),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    # The last batch of each worker comes as small as it is, and batches are put
    # together again here: no example is lost.
    served = data_service.distribute(batches, address).rebatch(
        sizes.batch_size, drop_remainder=True
    )
    return _checked(served, sizes).repeat()


def read_shards(
    source: RecordSource, shards: tf.Tensor, is_deterministic: bool = True
) -> tf.data.Dataset:
    """Keys of the records of `shards` int64 [S], several shards at a time."""
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        source.keys,
        cycle_length=min(source.num_shards, NUM_PARALLEL_SHARDS),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=is_deterministic,
    )


def _shuffled(keys: tf.data.Dataset, buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """`keys` in an order that follows from `seed` int64 [] alone; to be called within the function of a dataset."""
    # Else TensorFlow's global seed, which it mixes in, would have a say; and it cannot
    # mix 0 with a tensor. Of this graph only.
    tf.compat.v1.set_random_seed(1)
    return keys.shuffle(buffer_size, seed=seed, reshuffle_each_iteration=False)


def _checked(batches: tf.data.Dataset, sizes: EpochSizes) -> tf.data.Dataset:
    """`batches` of one epoch; fails where their number is another, which would send a resumed run to other batches, unseen."""
    return batches.apply(tf.data.experimental.assert_cardinality(sizes.num_steps))
