"""Checks that shards hold what their manifest and the config say, before a training.

Input: the files of a split, the manifest and what will be read. Output: nothing, or a
ValueError of one line. Only the first records are read. Without the checks, records of
another size would be decoded to wrong pixels or stop a training in its middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from beam_jobs.contracts import locations, records
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.shards import named_damage, why_damaged
from models.config import EncoderConfig

BYTES_PER_PIXEL = 2
"""Stored bytes of one band at one pixel: both sensors have 16 bits."""


def check_patch_size(manifest: Manifest, encoder: EncoderConfig) -> None:
    """Refuse patches whose size is not a multiple of the encoder's stride.

    Raises:
        ValueError: with stride and size.
    """
    if manifest.patch_size_px % encoder.stride:
        raise ValueError(
            f"manifest.patch_size_px must be a multiple of the stride {encoder.stride} of "
            f"{encoder.backbone!r}, got {manifest.patch_size_px}"
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
    """Read at least `num_needed` records, some of each file, and check their sizes.

    Args:
        split: name, for messages.
        files: gzip TFRecords. A shard that the manifest names must have the number of
            bytes that the manifest says.
        manifest: of the shards.
        sensors: sensors that will be read.
        with_label: whether labels will be read.
        num_needed: smallest number of records.

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
        # Spread what is left over the files that are left: every file is read, and
        # later files make up for small ones.
        share = max(1, math.ceil((num_needed - num_seen) / (len(files) - number)))
        num_seen += _check_records(path, manifest.patch_size_px, expected, share)
    if num_seen < num_needed:
        with named_damage(files, manifest):
            num_seen = sum(1 for _ in tf.data.TFRecordDataset(list(files), "GZIP").take(num_needed))
    if num_seen < num_needed:
        raise ValueError(
            f"{split} split must hold at least one batch of {num_needed} examples, "
            f"got {num_seen} in {len(files)} files; lower global_batch_size or bring more data"
        )


def _check_sensors(manifest: Manifest, sensors: Sequence[Sensor]) -> None:
    """Refuse a version with patches that have no scene of a needed sensor.

    Such a patch would be all no data for a model of that sensor.
    """
    for sensor in sensors:
        num_absent = sum(manifest.num_absent.get(sensor, {}).values())
        if num_absent:
            raise ValueError(
                f"every patch must have a scene of {sensor}, got {num_absent} without one in "
                f"span {manifest.span}, version {manifest.version}; build with "
                f"label.partner=required or take {sensor} out of sensors"
            )


def _expected_bytes(
    manifest: Manifest, sensors: Sequence[Sensor], with_label: bool
) -> dict[str, tuple[int, str]]:
    """Return for each feature its number of bytes and a description of the content."""
    size = manifest.patch_size_px
    expected = {}
    for sensor in sensors:
        num_bands = len(manifest.bands(sensor))
        expected[sensor] = (
            size * size * num_bands * BYTES_PER_PIXEL,
            f"{size}x{size} pixels of {num_bands} bands",
        )
    return expected | (
        {"label": (size * size, f"{size}x{size} labelled pixels")} if with_label else {}
    )


def _check_file_size(path: str, manifest: Manifest) -> None:
    """Refuse a shard that does not have the number of bytes that the manifest says."""
    entry = manifest.shards.get("/".join(path.split("/")[-2:]))
    if entry is None:  # A copy made by TFX has another name and size.
        return
    num_bytes = locations.size(path)
    if num_bytes is None:
        raise ValueError(f"{path}: the shard is missing, though the manifest names it")
    if num_bytes != entry.num_bytes:
        raise ValueError(
            f"{path}: must have the {entry.num_bytes} bytes that the manifest says, got {num_bytes}"
        )


def _check_records(
    path: str, size_px: int, expected: Mapping[str, tuple[int, str]], max_records: int
) -> int:
    """Check the first records of a file; return how many were read."""
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
            f"{path}: must hold whole records of patches: {why_damaged(path) or _text(error)}"
        ) from error
    for record in found:
        where = f"{path}: patch {record['patch_id'].decode()}"
        height, width = int(record["height"]), int(record["width"])
        if (height, width) != (size_px, size_px):
            raise ValueError(
                f"{where} must be {size_px}x{size_px} pixels, as the manifest says, "
                f"got {height}x{width}"
            )
        for name, (num_bytes, meaning) in expected.items():
            if len(record[name]) != num_bytes:
                raise ValueError(
                    f"{where}: {name} must hold {num_bytes} bytes, {meaning}, "
                    f"got {len(record[name])}"
                )
    return len(found)


def _text(error: tf.errors.OpError) -> str:
    return str(error.message).splitlines()[0]
