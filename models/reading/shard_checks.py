"""Whether shards hold what their manifest and the config say, seen from their first records before anything is trained.

Input: the files of a split, the manifest, what will be read. Output: silence or one
ValueError of one line. Called by `pretrain.py` and `segment.py`. Bytes that do not fit
would be taken for other pixels or stop a training in its middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from beam_jobs.contracts import records
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.manifest import Manifest
from models.config import EncoderConfig

BYTES_PER_PIXEL = 2
"""Of a band: both sensors are stored in 16 bits."""


def check_patch_size(manifest: Manifest, encoder: EncoderConfig) -> None:
    """Refuses patches that the encoder's strides cut unevenly.

    Raises:
        ValueError: with stride and size.
    """
    if manifest.patch_size_px % encoder.stride:
        raise ValueError(
            f"manifest.patch_size_px must be a multiple of the stride {encoder.stride} of {encoder.backbone!r}, "
            f"got {manifest.patch_size_px}"
        )


def check_split(
    split: str,
    files: Sequence[str],
    manifest: Manifest,
    *,
    sensors: Sequence[Sensor],
    with_label: bool = False,
    num_needed: int = 1,
) -> None:
    """Reads `num_needed` records, some of each file, and compares their sizes.

    Args:
        split: name, for messages.
        files: gzip TFRecords; where one is a shard that the manifest names, it must
            have the size that it says.
        manifest: of the shards.
        sensors: what will be read.
        with_label: whether labels will be, too.
        num_needed: records that there must be at least.

    Raises:
        ValueError: no file, patches without a scene of a sensor, a file that is
            missing, is not the manifest's or cannot be read, a record of other bands or
            size or without label, or too few records.
    """
    if not files:
        raise ValueError(f"{split} split must have at least one file, got none")
    _check_sensors(manifest, sensors)
    expected = _expected_bytes(manifest, sensors, with_label)
    num_seen = 0
    for number, path in enumerate(files):
        _check_file_size(path, manifest)
        # The rest, evenly: every file is looked into, and small ones are made up for by
        # those that follow.
        share = max(1, math.ceil((num_needed - num_seen) / (len(files) - number)))
        num_seen += _check_records(path, manifest.patch_size_px, expected, share)
    if num_seen < num_needed:
        num_seen = sum(1 for _ in tf.data.TFRecordDataset(list(files), "GZIP").take(num_needed))
    if num_seen < num_needed:
        raise ValueError(
            f"{split} split must hold at least one batch of {num_needed} examples, got {num_seen} in {len(files)} files; "
            "lower global_batch_size or bring more data"
        )


def _check_sensors(manifest: Manifest, sensors: Sequence[Sensor]) -> None:
    """Refuses a version in which patches lack a sensor that is asked for: it would be all no data, in train or in test."""
    for sensor in sensors:
        num_absent = sum(manifest.num_absent.get(sensor, {}).values())
        if num_absent:
            raise ValueError(
                f"every patch must have a scene of {sensor}, got {num_absent} without one in span {manifest.span}, version "
                f"{manifest.version}; build with label.partner=required or take {sensor} out of sensors"
            )


def _expected_bytes(
    manifest: Manifest, sensors: Sequence[Sensor], with_label: bool
) -> dict[str, tuple[int, str]]:
    """Feature -> its bytes, and what they are."""
    size = manifest.patch_size_px
    expected = {}
    for sensor in sensors:
        bands = manifest.s1_bands if sensor == "s1" else manifest.s2_bands
        expected[sensor] = (
            size * size * len(bands) * BYTES_PER_PIXEL,
            f"{size}x{size} pixels of {len(bands)} bands",
        )
    return expected | (
        {"label": (size * size, f"{size}x{size} labelled pixels")} if with_label else {}
    )


def _check_file_size(path: str, manifest: Manifest) -> None:
    entry = manifest.shards.get("/".join(path.split("/")[-2:]))
    if entry is None:  # A copy, as TFX makes them: it has another name and size.
        return
    if not tf.io.gfile.exists(path):
        raise ValueError(f"{path}: the shard is missing, though the manifest names it")
    num_bytes = tf.io.gfile.stat(path).length
    if num_bytes != entry.num_bytes:
        raise ValueError(
            f"{path}: must have the {entry.num_bytes} bytes that the manifest says, got {num_bytes}"
        )


def _check_records(
    path: str, size_px: int, expected: Mapping[str, tuple[int, str]], max_records: int
) -> int:
    """Compares the first records of a file; their number."""
    contract = records.feature_spec(1, 1)
    spec = {name: contract[name] for name in ("patch_id", "height", "width", *expected)}
    try:
        parsed = (
            tf.data.TFRecordDataset(path, "GZIP")
            .take(max_records)
            .map(lambda serialized: tf.io.parse_single_example(serialized, spec))
        )
        found = list(parsed.as_numpy_iterator())
    except tf.errors.OpError as error:
        raise ValueError(
            f"{path}: must hold whole records of patches: {error.message.splitlines()[0]}"
        ) from error
    for record in found:
        where = f"{path}: patch {record['patch_id'].decode()}"
        height, width = int(record["height"]), int(record["width"])
        if (height, width) != (size_px, size_px):
            raise ValueError(
                f"{where} must be {size_px}x{size_px} pixels, as the manifest says, got {height}x{width}"
            )
        for name, (num_bytes, meaning) in expected.items():
            if len(record[name]) != num_bytes:
                raise ValueError(
                    f"{where}: {name} must hold {num_bytes} bytes, {meaning}, got {len(record[name])}"
                )
    return len(found)
