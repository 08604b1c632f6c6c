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
) -> dict[str, tf.Tensor]:
    """Decodes a batch of tf.Examples of the shard contract; all patches of a batch must have one size.

    Args:
        serialized: tf.string [B], B at least 1.
        num_bands: channels per sensor to decode; other sensors are not even parsed.
        with_label: whether to decode `label` too.
        with_weight: whether to decode `weight` too.
        with_location: whether to decode `lon` and `lat` too.

    Returns:
        float32 [B, H, W, C] per sensor, physical units, NaN = no data; `label` uint8 [B, H, W], 255 = ignore; `weight`
        float32 [B], 0-1; `lon` and `lat` of the patch centres float32 [B], degrees.
    """
    scalars = [*(["weight"] if with_weight else []), *(["lon", "lat"] if with_location else [])]
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
    num_bands: Mapping[Sensor, int],
    with_label: bool,
    batch_size: int,
    shuffle_buffer: int,
    seed: int,
    with_weight: bool = False,
    with_location: bool = False,
    transform: BatchTransform | None = None,
) -> tf.data.Dataset:
    """Endless shuffled batches of exactly `batch_size`; the same seed gives the same batches.

    `transform` augments.

    Raises:
        ValueError: no files, or fewer examples than one batch.
    """
    _check_num_examples(files, batch_size)
    # Files are reshuffled each round, records within a buffer: together they mix records of far-apart places.
    paths = tf.data.Dataset.from_tensor_slices(list(files)).shuffle(len(files), seed=seed)
    dataset = _read(paths, len(files))
    # Batch before repeat: across the seam of two rounds a pair could meet its own copy as a negative.
    dataset = dataset.shuffle(shuffle_buffer, seed=seed).batch(batch_size, drop_remainder=True).repeat()
    # The batch's number seeds its transform, so that parallel decoding cannot change the result.
    counted = tf.data.Dataset.zip((tf.data.Dataset.counter(), dataset))

    def decode(step: tf.Tensor, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = parse_examples(serialized, num_bands, with_label, with_weight, with_location)
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
        batch = parse_examples(serialized, num_bands, with_label, with_location=with_location)
        return batch if transform is None else transform(batch, tf.stack([tf.constant(0, tf.int64), step]))

    return dataset.enumerate().map(decode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


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
