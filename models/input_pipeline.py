"""The input pipeline: gzip TFRecords -> batches of physical pixels with NaN as no data.

Input: files of one split. Output: `tf.data.Dataset` of {"s1": float32 [B, H, W, C1] dB,
"s2": float32 [B, H, W, C2] reflectance, "label": uint8 [B, H, W], "weight": float32
[B]}, or some of these. `parse_examples` is also part of the published graph. No Python
runs per record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import BANDS, Sensor
from models.config import InputConfig
from models.reading import data_service, epochs, passes
from models.reading.epochs import EpochPlan
from models.reading.record_source import Columns, open_source

PLAIN_READING = InputConfig()
"""Reads in order, without a cache, in this process."""

BatchTransform = Callable[[dict[str, tf.Tensor], tf.Tensor], dict[str, tf.Tensor]]
"""(batch, seed int64 [2]) -> batch; equal seeds give equal results."""

_STORED_DTYPES: dict[Sensor, tf.DType] = {"s1": tf.int16, "s2": tf.uint16}


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features that are decoded of each example; no other is parsed.

    Attributes:
        num_bands: sensor -> number of its channels.
        with_label: whether `label` is decoded.
        with_weight: whether `weight` is decoded.
        with_location: whether `lon` and `lat` are decoded.
        with_patch_id: whether `patch_id` is decoded.
    """

    num_bands: Mapping[Sensor, int]
    with_label: bool = False
    with_weight: bool = False
    with_location: bool = False
    with_patch_id: bool = False

    @property
    def spec(self) -> dict[str, tf.io.FixedLenFeature]:
        """The part of the shard contract's feature spec to parse."""
        optional = {
            "label": self.with_label,
            "weight": self.with_weight,
            "lon": self.with_location,
            "lat": self.with_location,
            "patch_id": self.with_patch_id,
        }
        num_bands = self.num_bands
        contract = records.feature_spec(num_bands.get("s1", 1), num_bands.get("s2", 1))
        wanted = (name for name, is_wanted in optional.items() if is_wanted)
        return {name: contract[name] for name in ("height", "width", *num_bands, *wanted)}


def parse_examples(
    serialized: tf.Tensor, num_bands: Mapping[Sensor, int], with_label: bool = False
) -> dict[str, tf.Tensor]:
    """Decode a batch of tf.Examples of the shard contract.

    All patches of a batch must have one size; the graph refuses others. A batch of 0
    examples gives images [0, 0, 0, C].

    Args:
        serialized: tf.string [B].
        num_bands: channels of each sensor to decode; other sensors are not parsed.
        with_label: whether to decode `label` too.

    Returns:
        float32 [B, H, W, C] per sensor, physical units, NaN = no data; `label` uint8
        [B, H, W], 255 = ignore.

    Raises:
        tf.errors.InvalidArgumentError: the patches differ in size, when the graph runs.
    """
    features = Features(num_bands=num_bands, with_label=with_label)
    return _decode(tf.io.parse_example(serialized, features.spec), num_bands)


def train_dataset(
    files: Sequence[str],
    features: Features,
    plan: EpochPlan,
    *,
    transform: BatchTransform | None = None,
    first_step: int = 0,
    reading: InputConfig = PLAIN_READING,
) -> tf.data.Dataset:
    """Return endless shuffled batches of exactly the planned size.

    Only the seed and the number of a step decide its batch; the order of `files` does
    not. An epoch has each example at most once. Examples that do not fill a batch at
    its end are left out; in each epoch these are others. Besides the pixels a batch may
    hold `label` uint8 [B, H, W] (255 = ignore), `weight` float32 [B] (0-1), `lon` and
    `lat` of the patch centres float32 [B] (degrees) and `patch_id` string [B].

    Args:
        files: gzip TFRecords of the split.
        features: what to decode.
        plan: sizes and seed.
        transform: augments each batch.
        first_step: number of steps already done; the first batch is that of the next
            step. Earlier epochs are not read; earlier records of the same epoch are
            read but not decoded.
        reading: cache, order and service. Only with `deterministic` reading do seed and
            step decide the batch.

    Raises:
        ValueError: the cache cannot be filled.
    """
    # Seeds shuffle the numbers of the files, so the numbers must not depend on how a
    # file system or an artifact lists them.
    source = open_source(sorted(files), features.spec, reading)

    @tf.autograph.experimental.do_not_convert
    def decode(number: tf.Tensor, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = _decode(source.fetch(keys), features.num_bands)
        batch_seed = tf.stack([tf.constant(plan.seed, tf.int64), number])
        return batch if transform is None else transform(batch, batch_seed)

    if reading.data_service:
        service = data_service.join(reading.data_service)
        dataset = epochs.served_batches(source, decode, plan, service)
    else:
        batches = epochs.ordered_batches(source, plan, first_step, reading.deterministic)
        # The number of the step seeds its augmentation, so that parallel decoding
        # cannot change the result.
        counted = tf.data.Dataset.zip((tf.data.Dataset.counter(first_step), batches))
        dataset = counted.map(
            decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=reading.deterministic
        )
    return dataset.prefetch(tf.data.AUTOTUNE)


def eval_dataset(
    files: Sequence[str],
    features: Features,
    *,
    batch_size: int,
    transform: BatchTransform | None = None,
    reading: InputConfig = PLAIN_READING,
) -> tf.data.Dataset:
    """Return one pass over all examples in file order; the last batch may be small.

    Only the batch's number seeds `transform`, so every pass of every run gets the same
    batches, on which models are compared. Of `reading` only the cache is used: order
    and process are fixed.

    Raises:
        ValueError: a cache that cannot be filled.
    """
    source = open_source(sorted(files), features.spec, reading)
    batches = epochs.read_shards(source, tf.range(source.num_shards, dtype=tf.int64)).batch(
        batch_size
    )

    @tf.autograph.experimental.do_not_convert
    def decode(step: tf.Tensor, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        batch = _decode(source.fetch(keys), features.num_bands)
        return (
            batch
            if transform is None
            else transform(batch, tf.stack([tf.constant(0, tf.int64), step]))
        )

    return passes.one_pass(batches.enumerate(), decode)


def _decode(columns: Columns, num_bands: Mapping[Sensor, int]) -> dict[str, tf.Tensor]:
    """Decode bytes to pixels and labels; other features stay as they are."""
    # The size is read at run time, one per batch: the published graph must take patches
    # of any size.
    sizes = tf.cast(tf.stack([columns["height"], columns["width"]], axis=1), tf.int32)
    # Patches of 32 x 16 and 16 x 32 have equally many bytes: without the check their
    # pixels would be mixed up.
    check = tf.debugging.assert_equal(
        sizes,
        sizes[:1],
        "all examples of one batch must have one height and width; "
        "send those of another size in a batch of their own",
    )
    with tf.control_dependencies([check]):
        return _decode_alike(columns, num_bands, sizes)


def _decode_alike(
    columns: Columns, num_bands: Mapping[Sensor, int], sizes: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Decode examples of one size; `sizes` int32 [B, 2] are equal rows."""
    num_examples = tf.shape(sizes)[0]
    # A batch may have no row.
    height, width = tf.unstack(tf.reduce_max(tf.pad(sizes, [[0, 1], [0, 0]]), axis=0))
    decoded: dict[str, tf.Tensor] = {}
    for sensor, channels in num_bands.items():
        # All bands of a sensor are stored alike.
        band = next(iter(BANDS[sensor].values()))
        # Every int16 and uint16 is exact in float32, so the no-data value is still
        # found after the cast.
        stored = tf.cast(tf.io.decode_raw(columns[sensor], _STORED_DTYPES[sensor]), tf.float32)
        pixels = tf.where(stored == float(band.nodata), float("nan"), stored * band.scale)
        decoded[sensor] = tf.reshape(pixels, [num_examples, height, width, channels])
    if "label" in columns:
        decoded["label"] = tf.reshape(
            tf.io.decode_raw(columns["label"], tf.uint8), [num_examples, height, width]
        )
    decoded_already = {"height", "width", "label", *num_bands}
    return decoded | {
        name: column for name, column in columns.items() if name not in decoded_already
    }
