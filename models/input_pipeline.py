"""tf.data from shards: gzip TFRecords -> batches of physical float32 pixels with NaN as no data.

Input: files of one split. Output: `tf.data.Dataset` of {"s1": [B, H, W, C1] dB, "s2": [B, H, W, C2] reflectance, "label":
uint8 [B, H, W], "weight": float32 [B]}, as asked for. Called by `pretrain.py` and `segment.py`; `parse_examples` also lives
in the published graph. No Python runs per record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from beam_jobs.contracts import bands as bands_lib
from beam_jobs.contracts import records
from beam_jobs.contracts.bands import Sensor

NUM_PARALLEL_FILES = 8
"""Shards read at a time: enough to hide gzip behind training, few enough to keep buffers small."""

BatchTransform = Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]]
"""(batch, seed int64 [2]) -> batch; equal seeds give equal results."""


def parse_examples(
    serialized: tf.Tensor,
    num_bands: Mapping[Sensor, int],
    with_label: bool = False,
    with_weight: bool = False,
    with_location: bool = False,
    with_patch_id: bool = False,
) -> dict[str, tf.Tensor]:
    """Decodes a batch of tf.Examples of the shard contract; all patches of a batch must have one size.

    Args:
        serialized: tf.string [B], B at least 1.
        num_bands: channels per sensor to decode; other sensors are not even parsed.
        with_label: whether to decode `label` too.
        with_weight: whether to decode `weight` too.
        with_location: whether to decode `lon` and `lat` too.
        with_patch_id: whether to decode `patch_id` too.

    Returns:
        float32 [B, H, W, C] per sensor, physical units, NaN = no data; `label` uint8 [B, H, W], 255 = ignore; `weight`
        float32 [B], 0-1; `lon` and `lat` of the patch centres float32 [B], degrees; `patch_id` string [B].
    """
    wanted = {"weight": with_weight, "lon": with_location, "lat": with_location, "patch_id": with_patch_id}
    scalars = [name for name, is_wanted in wanted.items() if is_wanted]
    names = ["height", "width", *num_bands, *(["label"] if with_label else []), *scalars]
    contract = records.feature_spec(num_bands.get("s1", 1), num_bands.get("s2", 1))
    parsed = tf.io.parse_example(serialized, {name: contract[name] for name in names})
    # One size per batch, read at run time: the published graph must take patches of any size.
    height, width = tf.cast(parsed["height"][0], tf.int32), tf.cast(parsed["width"][0], tf.int32)
    decoded: dict[str, tf.Tensor] = {}
    for sensor, channels in num_bands.items():
        dtype, nodata, scale = (
            (tf.int16, bands_lib.S1_NODATA, bands_lib.S1_DB_PER_DN)
            if sensor == "s1"
            else (tf.uint16, bands_lib.S2_NODATA, bands_lib.S2_REFLECTANCE_PER_DN)
        )
        # Every int16 and uint16 is exact in float32, so the no-data mark is still found after the cast.
        stored = tf.cast(tf.io.decode_raw(parsed[sensor], dtype), tf.float32)
        pixels = tf.where(stored == float(nodata), float("nan"), stored * scale)
        decoded[sensor] = tf.reshape(pixels, [-1, height, width, channels])
    if with_label:
        decoded["label"] = tf.reshape(tf.io.decode_raw(parsed["label"], tf.uint8), [-1, height, width])
    return decoded | {name: parsed[name] for name in scalars}


def train_dataset(
    files: Sequence[str],
    *,
    num_examples: int,
    num_bands: Mapping[Sensor, int],
    with_label: bool,
    batch_size: int,
    shuffle_buffer: int,
    seed: int,
    with_weight: bool = False,
    with_location: bool = False,
    with_patch_id: bool = False,
    transform: BatchTransform | None = None,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Endless shuffled batches of exactly `batch_size`; the batch of a step depends on nothing but the seed and its number.

    An epoch sees each example at most once: those that fill no batch at its end are left out, others in each epoch.

    Args:
        files: gzip TFRecords of the split.
        num_examples: in all files together, as the manifest says.
        num_bands: see `parse_examples`, like the other names that begin with `with_`.
        with_label: whether to decode `label` too.
        batch_size: examples per step.
        shuffle_buffer: records held for shuffling.
        seed: of order and transform.
        with_weight: whether to decode `weight` too.
        with_location: whether to decode `lon` and `lat` too.
        with_patch_id: whether to decode `patch_id` too.
        transform: augments each batch.
        first_step: steps done already. The first batch is that of the step after them; of the epochs before it nothing is
            read, of its own epoch the records before it are read but not decoded.

    Raises:
        ValueError: no files, or fewer examples than one batch.
    """
    _check_num_examples(files, batch_size)
    if num_examples < batch_size:
        raise ValueError(f"num_examples must be at least one batch of {batch_size}, got {num_examples}")
    dataset = _epochs(files, shuffle_buffer, batch_size, num_examples // batch_size, seed, first_step)
    # The batch's number seeds its transform, so that parallel decoding cannot change the result.
    counted = tf.data.Dataset.zip((tf.data.Dataset.counter(first_step), dataset))

    def decode(step: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = parse_examples(serialized, num_bands, with_label, with_weight, with_location, with_patch_id)
        batch_seed = tf.stack([tf.constant(seed, tf.int64), step])
        return batch if transform is None else transform(batch, batch_seed)

    return counted.map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    files: Sequence[str],
    *,
    num_bands: Mapping[Sensor, int],
    with_label: bool,
    batch_size: int,
    with_location: bool = False,
    with_patch_id: bool = False,
    transform: BatchTransform | None = None,
) -> tf.data.Dataset:
    """One pass over all examples in file order, the last batch as small as it comes.

    `transform` is seeded by the batch's number alone: every pass, of every run, sees the same.

    Raises:
        ValueError: no files, or no example in them.
    """
    _check_num_examples(files, 1)
    dataset = _read(tf.data.Dataset.from_tensor_slices(sorted(files)), len(files)).batch(batch_size)

    def decode(step: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = parse_examples(
            serialized, num_bands, with_label, with_location=with_location, with_patch_id=with_patch_id
        )
        return batch if transform is None else transform(batch, tf.stack([tf.constant(0, tf.int64), step]))

    return dataset.enumerate().map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _epochs(
    files: Sequence[str], shuffle_buffer: int, batch_size: int, steps_per_epoch: int, seed: int, first_step: int
) -> tf.data.Dataset:
    """Endless batches of serialized records, beginning with that of the step after `first_step`."""
    first_epoch, num_skipped = divmod(first_step, steps_per_epoch)

    # A dataset per epoch, not `repeat`: so each one's order follows from its number, and a resumed run can begin with any.
    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        batches = _shuffled(files, shuffle_buffer, tf.stack([tf.constant(seed, tf.int64), epoch]))
        batches = batches.batch(batch_size, drop_remainder=True)
        # Else a count that is not the files' own would send a resumed run to other batches, unseen.
        batches = batches.apply(tf.data.experimental.assert_cardinality(steps_per_epoch))
        return batches.skip(tf.where(epoch == first_epoch, tf.constant(num_skipped, tf.int64), 0))

    # Batches end with their epoch: across the seam of two a pair could meet its own copy as a negative.
    return tf.data.Dataset.counter(first_epoch).flat_map(epoch_batches)


def _shuffled(files: Sequence[str], buffer_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Serialized records of the files in an order that follows from `seed` int64 [2]."""
    # Files among each other, records within a buffer: together they mix records of far-apart places.
    paths = tf.random.experimental.stateless_shuffle(tf.constant(list(files)), seed)
    buffer_seed = tf.random.stateless_uniform([], seed, minval=None, maxval=None, dtype=tf.int64)
    # Else TensorFlow's global seed, which it mixes in, would have a say; and it cannot mix 0 with a tensor. Of this graph only.
    tf.compat.v1.set_random_seed(1)
    records_of_epoch = _read(tf.data.Dataset.from_tensor_slices(paths), len(files))
    return records_of_epoch.shuffle(buffer_size, seed=buffer_seed, reshuffle_each_iteration=False)


def _read(paths: tf.data.Dataset, num_files: int) -> tf.data.Dataset:
    """Serialized records of the files, several files at a time, in a reproducible order."""
    return paths.interleave(
        lambda path: tf.data.TFRecordDataset(path, compression_type="GZIP"),
        cycle_length=min(num_files, NUM_PARALLEL_FILES),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _check_num_examples(files: Sequence[str], num_needed: int) -> None:
    """Reads no more than `num_needed` records; without this check an endless pipeline of no batch never answers."""
    if not files:
        raise ValueError("a split needs at least one file, got none")
    records_seen = tf.data.TFRecordDataset(sorted(files), compression_type="GZIP").take(num_needed)
    num_examples = sum(1 for _ in records_seen)
    if num_examples < num_needed:
        raise ValueError(
            f"a split must hold at least one batch of {num_needed} examples, got {num_examples} in {len(files)} files; "
            "lower global_batch_size or bring more data"
        )
