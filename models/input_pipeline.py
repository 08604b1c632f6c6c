"""tf.data from shards: gzip TFRecords -> batches of physical float32 pixels with NaN as no data.

Input: files of one split. Output: `tf.data.Dataset` of {"s1": [B, H, W, C1] dB, "s2":
[B, H, W, C2] reflectance, "label": uint8 [B, H, W], "weight": float32 [B]}, as asked
for. Called by `pretrain.py` and `segment.py`; `parse_examples` also lives in the
published graph. No Python runs per record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from beam_jobs.contracts import bands as bands_lib
from beam_jobs.contracts import records
from beam_jobs.contracts.bands import Sensor
from models.config import InputConfig
from models.reading import epochs
from models.reading.epochs import EpochSizes
from models.reading.record_source import Columns, open_source

PLAIN_READING = InputConfig()
"""In order, without a cache, in this process."""

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
        float32 [B, H, W, C] per sensor, physical units, NaN = no data; `label` uint8
        [B, H, W], 255 = ignore; `weight` float32 [B], 0-1; `lon` and `lat` of the patch
        centres float32 [B], degrees; `patch_id` string [B].
    """
    spec = _feature_spec(num_bands, with_label, with_weight, with_location, with_patch_id)
    return _decode(tf.io.parse_example(serialized, spec), num_bands)


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
    reading: InputConfig = PLAIN_READING,
) -> tf.data.Dataset:
    """Endless shuffled batches of exactly `batch_size`; the batch of a step depends on nothing but the seed and its number.

    An epoch sees each example at most once: those that fill no batch at its end are
    left out, others in each epoch.

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
        first_step: steps done already. The first batch is that of the step after them;
            of the epochs before it nothing is read, of its own epoch the records before
            it are read but not decoded.
        reading: cache, order, service. Only `deterministic` reading keeps what is said
            here of steps.

    Raises:
        ValueError: fewer examples than one batch, or a cache that cannot be filled.
    """
    sizes = EpochSizes(
        num_examples=num_examples, batch_size=batch_size, shuffle_buffer=shuffle_buffer
    )
    spec = _feature_spec(num_bands, with_label, with_weight, with_location, with_patch_id)
    source = open_source(files, spec, reading)

    @tf.autograph.experimental.do_not_convert
    def decode(number: tf.Tensor, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = _decode(source.fetch(keys), num_bands)
        batch_seed = tf.stack([tf.constant(seed, tf.int64), number])
        return batch if transform is None else transform(batch, batch_seed)

    if reading.data_service:
        dataset = epochs.served_batches(source, decode, sizes, reading.data_service)
    else:
        batches = epochs.ordered_batches(source, sizes, seed, first_step, reading.deterministic)
        # The step seeds its augmentation, so that parallel decoding cannot change the
        # result.
        counted = tf.data.Dataset.zip((tf.data.Dataset.counter(first_step), batches))
        dataset = counted.map(
            decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=reading.deterministic
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    files: Sequence[str],
    *,
    num_bands: Mapping[Sensor, int],
    with_label: bool,
    batch_size: int,
    with_location: bool = False,
    with_patch_id: bool = False,
    transform: BatchTransform | None = None,
    reading: InputConfig = PLAIN_READING,
) -> tf.data.Dataset:
    """One pass over all examples in file order, the last batch as small as it comes.

    `transform` is seeded by the batch's number alone: every pass, of every run, sees
    the same. Of `reading` only the cache counts: metrics of two models are compared on
    the same batches, and are read by this process.

    Raises:
        ValueError: a cache that cannot be filled.
    """
    spec = _feature_spec(
        num_bands, with_label, with_location=with_location, with_patch_id=with_patch_id
    )
    source = open_source(sorted(files), spec, reading)
    batches = epochs.read_shards(source, tf.range(source.num_shards, dtype=tf.int64)).batch(
        batch_size
    )

    @tf.autograph.experimental.do_not_convert
    def decode(step: tf.Tensor, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = _decode(source.fetch(keys), num_bands)
        return (
            batch
            if transform is None
            else transform(batch, tf.stack([tf.constant(0, tf.int64), step]))
        )

    return (
        batches.enumerate()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _feature_spec(
    num_bands: Mapping[Sensor, int],
    with_label: bool = False,
    with_weight: bool = False,
    with_location: bool = False,
    with_patch_id: bool = False,
) -> dict[str, tf.io.FixedLenFeature]:
    """What to parse; see `parse_examples`."""
    optional = {
        "label": with_label,
        "weight": with_weight,
        "lon": with_location,
        "lat": with_location,
        "patch_id": with_patch_id,
    }
    contract = records.feature_spec(num_bands.get("s1", 1), num_bands.get("s2", 1))
    names = [
        "height",
        "width",
        *num_bands,
        *(name for name, is_wanted in optional.items() if is_wanted),
    ]
    return {name: contract[name] for name in names}


def _decode(columns: Columns, num_bands: Mapping[Sensor, int]) -> dict[str, tf.Tensor]:
    """Bytes -> pixels and labels; what is no pixel stays as it is."""
    num_examples = tf.shape(columns["height"])[0]
    # One size per batch, read at run time: the published graph must take patches of any
    # size.
    height, width = tf.cast(columns["height"][0], tf.int32), tf.cast(columns["width"][0], tf.int32)
    decoded: dict[str, tf.Tensor] = {}
    for sensor, channels in num_bands.items():
        dtype, nodata, scale = (
            (tf.int16, bands_lib.S1_NODATA, bands_lib.S1_DB_PER_DN)
            if sensor == "s1"
            else (tf.uint16, bands_lib.S2_NODATA, bands_lib.S2_REFLECTANCE_PER_DN)
        )
        # Every int16 and uint16 is exact in float32, so the no-data mark is still found
        # after the cast.
        stored = tf.cast(tf.io.decode_raw(columns[sensor], dtype), tf.float32)
        pixels = tf.where(stored == float(nodata), float("nan"), stored * scale)
        decoded[sensor] = tf.reshape(pixels, [num_examples, height, width, channels])
    if "label" in columns:
        decoded["label"] = tf.reshape(
            tf.io.decode_raw(columns["label"], tf.uint8), [num_examples, height, width]
        )
    decoded_already = {"height", "width", "label", *num_bands}
    return decoded | {
        name: column for name, column in columns.items() if name not in decoded_already
    }
