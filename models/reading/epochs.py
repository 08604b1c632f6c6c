"""Epochs: which records make up which batch.

Input: a `RecordSource` and a plan. Output: endless batches of keys in an order that can
be repeated, or decoded batches from a tf.data service. Both drop only the records that
do not fill a batch at the end of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from models.reading import data_service, passes
from models.reading.data_service import Service
from models.reading.record_source import RecordSource

NUM_PARALLEL_SHARDS = 8
"""Shards read at the same time: enough to hide gzip, few enough for small buffers."""

Decode = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]
"""(number int64 [] that seeds the augmentation, keys [B]) -> batch."""


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """Sizes of an epoch and its parts, and the seed of its order.

    Attributes:
        num_examples: examples in all shards together.
        batch_size: examples per step.
        shuffle_buffer: records held for shuffling.
        seed: of the order, and of what augments a batch.
    """

    num_examples: int
    batch_size: int
    shuffle_buffer: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_examples < self.batch_size:
            raise ValueError(
                f"num_examples must be at least one batch of {self.batch_size}, "
                f"got {self.num_examples}"
            )

    @property
    def num_steps(self) -> int:
        """Full batches of an epoch."""
        return self.num_examples // self.batch_size


def ordered_batches(
    source: RecordSource, plan: EpochPlan, first_step: int, is_deterministic: bool
) -> tf.data.Dataset:
    """Return endless batches of keys, beginning with the step after `first_step`.

    Seed and step alone decide a batch. Earlier records of the same epoch are read again
    but not decoded; earlier epochs are not read.
    """
    first_epoch, num_skipped = divmod(first_step, plan.num_steps)

    # One dataset per epoch and not `repeat`: the order then follows from the epoch's
    # number, and a resumed run can begin with any epoch.
    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = tf.stack([tf.constant(plan.seed, tf.int64), epoch])
        # Shuffle the shards, and the records within a buffer. Together they mix records
        # of distant places.
        shards = tf.random.experimental.stateless_shuffle(
            tf.range(source.num_shards, dtype=tf.int64), epoch_seed
        )
        buffer_seed = tf.random.stateless_uniform(
            [], epoch_seed, minval=None, maxval=None, dtype=tf.int64
        )
        keys = _shuffled(
            read_shards(source, shards, is_deterministic), plan.shuffle_buffer, buffer_seed
        )
        # Batches end with their epoch. In a batch of two epochs a pair could have its
        # own copy as a negative.
        batches = _checked(keys.batch(plan.batch_size, drop_remainder=True), plan)
        return batches.skip(tf.where(epoch == first_epoch, tf.constant(num_skipped, tf.int64), 0))

    return tf.data.Dataset.counter(first_epoch).flat_map(epoch_batches)


def served_batches(
    source: RecordSource, decode: Decode, plan: EpochPlan, service: Service
) -> tf.data.Dataset:
    """Return endless batches from a tf.data service, whose servers share each epoch.

    Several readers of one training share them, too. One that is at the end of an epoch
    goes on with the next, so for some steps readers may be in two. The sharding of
    their datasets is off.

    Raises:
        ValueError: fewer shards than readers. One of them would wait for rows.
    """
    if source.num_shards < service.num_readers:
        raise ValueError(
            f"input.data_service: needs a shard of the train split for each of the "
            f"{service.num_readers} workers, got {source.num_shards}: build the version with "
            "more shards, or leave data_service empty"
        )
    # Rebatching here keeps all examples: each server's last batch may be small.
    epoch = served_epoch(source, decode, plan, service)
    if service.num_readers == 1:
        return _checked(epoch.rebatch(plan.batch_size, drop_remainder=True), plan).repeat()
    # Not `repeat`, which would end at an epoch of which this reader got nothing. Nor is
    # the rest of an epoch left out: a reader may get less than a batch of each.
    share = tf.data.Dataset.counter().flat_map(lambda _: epoch).rebatch(plan.batch_size)
    options = tf.data.Options()
    # A strategy must not share out a share once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return share.with_options(options)


def served_epoch(
    source: RecordSource, decode: Decode, plan: EpochPlan, service: Service
) -> tf.data.Dataset:
    """Return what this reader gets of an epoch: batches of at most the planned size."""
    # A server takes few shards at a time. Otherwise the first one would take all.
    num_parallel = max(1, min(NUM_PARALLEL_SHARDS, source.num_shards // NUM_PARALLEL_SHARDS))

    def shuffled_keys(shard: tf.Tensor) -> tf.data.Dataset:
        buffer_size = max(1, plan.shuffle_buffer // num_parallel)
        return _shuffled(source.keys(shard), buffer_size, data_service.fresh_seed())

    keys = tf.data.Dataset.range(source.num_shards).interleave(
        shuffled_keys, cycle_length=num_parallel
    )
    batches = keys.batch(plan.batch_size).map(
        lambda keys: decode(data_service.fresh_seed(), keys),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    # A server deletes its iterator when it stops.
    return data_service.distribute(passes.untuned(batches), service)


def read_shards(
    source: RecordSource, shards: tf.Tensor, is_deterministic: bool = True
) -> tf.data.Dataset:
    """Return the keys of the records of `shards` int64 [S], read several at a time."""
    return tf.data.Dataset.from_tensor_slices(shards).interleave(
        source.keys,
        cycle_length=min(source.num_shards, NUM_PARALLEL_SHARDS),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=is_deterministic,
    )


def _shuffled(keys: tf.data.Dataset, buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Return `keys` in an order that only `seed` int64 [] decides.

    Call it only in the function of a dataset.
    """
    # TensorFlow combines its global seed with this one; a constant keeps the order
    # independent of it. It must not be 0, and it holds for this graph only.
    tf.compat.v1.set_random_seed(1)
    return keys.shuffle(buffer_size, seed=seed, reshuffle_each_iteration=False)


def _checked(batches: tf.data.Dataset, plan: EpochPlan) -> tf.data.Dataset:
    """Return the `batches` of one epoch; reading fails when their number is another.

    Otherwise a resumed run would silently continue with other batches.
    """
    return batches.apply(tf.data.experimental.assert_cardinality(plan.num_steps))
