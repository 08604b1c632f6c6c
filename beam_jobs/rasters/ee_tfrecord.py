"""Earth Engine's TFRecord exports as rasters.

An export is a grid of patches that a `...mixer.json` describes, or single patches.
Members:

- `...mixer.json#<band>` is a raster of that band alone (a label, a cloud mask).
- `....tfrecord.gz#<n>` is record n, counted from 0.
- `....tfrecord.gz#<n>/<band>` is one band of record n.

Masked pixels have the export's `defaultValue`, which is 0 unless it was set. Where 0
can be a measurement, the catalog must therefore declare `nodata`.

Source: https://developers.google.com/earth-engine/guides/tfrecord (patches in row order
over files in name order, each band a list of floats by row).
"""

from __future__ import annotations

import contextlib
import math
import os
import zlib
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from rasterio import Affine

from beam_jobs.errors import DataError
from beam_jobs.rasters.gzip_index import GzipIndex
from beam_jobs.rasters.mixer import Mixer, read_mixer, record_paths, stem
from beam_jobs.rasters.raster import GridRaster, Header, Pixels

RECORD_SUFFIXES = (".tfrecord", ".tfrecord.gz")
# A record has its length and a checksum before it, and a checksum after it.
# Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
MAX_RECORD_BYTES = 1 << 30
"""Largest record. Earth Engine writes files of 1 GiB at most, before compression.

Source: https://developers.google.com/earth-engine/guides/tfrecord (maxFileSize).
"""


class ExportRaster(GridRaster):
    """The patches of an export as one raster.

    The margin that `kernelSize` adds around each patch is cut off.
    """

    def __init__(self, name: str, mixer: Mixer, records: Records, band: str) -> None:
        example = records.example(0)
        bands = (band,) if band else tuple(sorted(example))
        self._mixer, self._records = mixer, records
        self._margin = _margin(mixer, _values(example, bands[0], name).size, name)
        rows = mixer.num_patches // mixer.patches_per_row
        header = Header(
            crs=mixer.crs,
            transform=mixer.transform,
            height=rows * mixer.patch_height,
            width=mixer.patches_per_row * mixer.patch_width,
            descriptions=bands,
            nodata=None,
            block_shape=(mixer.patch_height, mixer.patch_width),
        )
        super().__init__(name, header)

    def _read(self, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        mixer = self._mixer
        result = np.zeros((len(indexes), height, width), np.float32)
        for patch_row in range(row // mixer.patch_height, -(-(row + height) // mixer.patch_height)):
            for patch_col in range(
                col // mixer.patch_width, -(-(col + width) // mixer.patch_width)
            ):
                patch = self._patch(indexes, patch_row * mixer.patches_per_row + patch_col)
                top, left = (
                    patch_row * mixer.patch_height - row,
                    patch_col * mixer.patch_width - col,
                )
                part = patch[:, max(-top, 0) : height - top, max(-left, 0) : width - left]
                top, left = max(top, 0), max(left, 0)
                result[:, top : top + part.shape[1], left : left + part.shape[2]] = part
        return result

    def _patch(self, indexes: list[int], number: int) -> Pixels:
        """Return patch `number` without its margin, [C, patch_height, patch_width]."""
        mixer, margin = self._mixer, self._margin
        where = f"{self.name}: patch {number}"
        example = self._records.example(number)
        shape = mixer.patch_height + 2 * margin, mixer.patch_width + 2 * margin
        planes = [
            _plane(example, str(self.descriptions[index - 1]), shape, where) for index in indexes
        ]
        return np.stack(planes)[
            :, margin : margin + mixer.patch_height, margin : margin + mixer.patch_width
        ]


class RecordRaster(GridRaster):
    """One record without a mixer: a square patch without a place on Earth."""

    def __init__(self, name: str, example: dict[str, tf.train.Feature], band: str) -> None:
        bands = (band,) if band else tuple(sorted(example))
        num_values = _values(example, bands[0], name).size
        size = math.isqrt(num_values)
        if size == 0 or size * size != num_values:
            raise DataError(
                f"{name}: band {bands[0]} has {num_values} values, which are no square patch; "
                "without a mixer file its height and width are unknown",
                "wrong_patch_size",
            )
        self._planes = np.stack([_plane(example, band, (size, size), name) for band in bands])
        header = Header(
            crs=None,
            transform=Affine.identity(),
            height=size,
            width=size,
            descriptions=bands,
            nodata=None,
            block_shape=(size, size),
        )
        super().__init__(name, header)

    def _read(self, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        return self._planes[[index - 1 for index in indexes], row : row + height, col : col + width]


class Records:
    """Records of TFRecord files in order, read one at a time.

    Only the places of the records are held in memory.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = paths
        self._compressed = {}
        for path in paths:
            lengths = _Lengths(path)
            if not _is_gzip(path):
                lengths.check_plain()
                continue
            # TensorFlow says below where a damaged file ends.
            with contextlib.suppress(zlib.error):
                self._compressed[path] = GzipIndex(path, lengths.check)
        self._offsets = [_offsets(path) for path in paths]
        self._first = [0, *accumulate(len(offsets) for offsets in self._offsets)]

    def __len__(self) -> int:
        return self._first[-1]

    def example(self, number: int) -> dict[str, tf.train.Feature]:
        """Return the features of record `number`, counted from 0, by name."""
        file = next(index for index, first in enumerate(self._first[1:]) if number < first)
        offset, length = self._offsets[file][number - self._first[file]]
        path = self._paths[file]
        if path in self._compressed:
            content = self._compressed[path].read(offset, length)
        else:
            with open(path, "rb") as stream:
                stream.seek(offset)
                content = stream.read(length)
        features = dict(tf.train.Example.FromString(content).features.feature)
        if not features:
            raise DataError(
                f"{path}: record {number} has no bands (exported with sequenceData?)",
                "missing_bands",
            )
        return features


def open_export(name: str, mixer_path: str, band: str) -> ExportRaster:
    """Return the raster of a mixer file and the TFRecord files beside it.

    Raises:
        DataError: the mixer or a file is missing, or number or size of the patches
            contradict the mixer.
    """
    mixer = read_mixer(Path(mixer_path))
    paths = record_paths(Path(mixer_path))
    if not paths:
        raise DataError(
            f"{mixer_path}: no {stem(Path(mixer_path))}-00000.tfrecord.gz lies beside it",
            "missing_file",
        )
    records = _records(tuple(map(str, paths)))
    if len(records) != mixer.num_patches:
        raise DataError(
            f"{mixer_path}: says {mixer.num_patches} patches, the {len(paths)} TFRecord files "
            f"beside it hold {len(records)} "
            "(an export with maskedThreshold leaves patches out and cannot be put together)",
            "wrong_patch_count",
        )
    return ExportRaster(name, mixer, records, band)


def open_record(name: str, path: str, member: str) -> RecordRaster:
    """Return the raster of one record.

    Raises:
        DataError: there is no such record, or its patch is not square.
    """
    number, _, band = member.partition("/")
    records = _records((path,))
    if not number.isdecimal() or int(number) >= len(records):
        raise DataError(
            f"{name}: needs a record from 0 to {len(records) - 1} after #, got {number!r}",
            "missing_bands",
        )
    return RecordRaster(name, records.example(int(number)), band)


def num_records(path: Path) -> int:
    """Return the number of records in a TFRecord file, after checking all of them."""
    return len(_records((str(path),)))


def _records(paths: tuple[str, ...]) -> Records:
    stats = [Path(path).stat() for path in paths]
    return _indexed(paths, tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


@lru_cache(maxsize=8)
def _indexed(paths: tuple[str, ...], _: tuple[tuple[int, int], ...]) -> Records:
    # A build opens a scene once for each of its strips. Size and modification time are
    # in the key, so a file that was exported again is indexed again.
    return Records(paths)


class _Lengths:
    """Checks the lengths of records before TensorFlow reads them.

    TensorFlow takes as much memory as a record says it has, and ends the process when
    there is not so much.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._header, self._num_to_skip = b"", 0

    def check(self, content: bytes) -> None:
        """Check the next piece of the content.

        Raises:
            DataError: a record is larger than MAX_RECORD_BYTES.
        """
        position = 0
        while position < len(content):
            if self._num_to_skip:
                step = min(self._num_to_skip, len(content) - position)
                self._num_to_skip -= step
            else:
                step = _HEADER_BYTES - len(self._header)
                self._header += content[position : position + step]
                if len(self._header) == _HEADER_BYTES:
                    self._num_to_skip = self._checked(self._header) + _FOOTER_BYTES
                    self._header = b""
            position += step

    def check_plain(self) -> None:
        """Check all records of a file that is not compressed.

        Raises:
            DataError: see `check`.
        """
        with open(self._path, "rb") as file:
            while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
                file.seek(self._checked(header) + _FOOTER_BYTES, os.SEEK_CUR)

    def _checked(self, header: bytes) -> int:
        length = int.from_bytes(header[:8], "little")
        if length > MAX_RECORD_BYTES:
            raise DataError(
                f"{self._path}: a record may have {MAX_RECORD_BYTES} bytes, got {length}",
                "unreadable_raster",
            )
        return length


def _offsets(path: str) -> list[tuple[int, int]]:
    """Return (offset in the uncompressed file, length) of each record.

    TensorFlow reads the file and checks its checksums.
    """
    offsets, offset = [], 0
    try:
        for content in tf.data.TFRecordDataset(
            path, "GZIP" if _is_gzip(path) else ""
        ).as_numpy_iterator():
            # Fails if the record is not a tf.Example, whatever its features are called.
            tf.io.parse_single_example(content, {"any": tf.io.VarLenFeature(tf.float32)})
            offsets.append((offset + _HEADER_BYTES, len(content)))
            offset += _HEADER_BYTES + len(content) + _FOOTER_BYTES
    # TensorFlow quotes the record in its message, which is not valid text if the record
    # is not a tf.Example.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        detail = (
            error.message
            if isinstance(error, tf.errors.OpError)
            else "the next record is no tf.Example"
        )
        raise DataError(
            f"{path}: cut short or damaged after {len(offsets)} records: {detail.splitlines()[0]}",
            "unreadable_raster",
        ) from error
    if not offsets:
        raise DataError(f"{path}: holds no record", "unreadable_raster")
    return offsets


def _is_gzip(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _margin(mixer: Mixer, num_values: int, where: str) -> int:
    """Return the pixels that `kernelSize` added on each side of a patch.

    The mixer does not tell them. They are the m of (height + 2m)(width + 2m) =
    num_values.
    """
    total, difference = (
        mixer.patch_height + mixer.patch_width,
        mixer.patch_height - mixer.patch_width,
    )
    root = math.isqrt(difference * difference + 4 * num_values)
    margin, rest = divmod(root - total, 4)
    if (
        rest
        or margin < 0
        or (mixer.patch_height + 2 * margin) * (mixer.patch_width + 2 * margin) != num_values
    ):
        raise DataError(
            f"{where}: a band has {num_values} values a patch, which is neither "
            f"{mixer.patch_width} x {mixer.patch_height} nor "
            "that with the margin of a square, even kernelSize",
            "wrong_patch_size",
        )
    return margin


def _values(example: dict[str, tf.train.Feature], band: str, where: str) -> npt.NDArray[np.float32]:
    """Return all values of a band as stored; a byte band is one string of bytes."""
    if band not in example:
        raise DataError(
            f"{where}: has no band {band}; it has {', '.join(sorted(example))}", "missing_bands"
        )
    feature = example[band]
    if feature.bytes_list.value:
        return np.frombuffer(b"".join(feature.bytes_list.value), np.uint8).astype(np.float32)
    values = feature.float_list.value or feature.int64_list.value
    # np.array would take twenty times as long on a repeated field.
    return np.fromiter(values, np.float32, len(values))


def _plane(
    example: dict[str, tf.train.Feature], band: str, shape: tuple[int, int], where: str
) -> npt.NDArray[np.float32]:
    values = _values(example, band, where)
    if values.size != shape[0] * shape[1]:
        raise DataError(
            f"{where}: band {band} has {values.size} values, "
            f"needs {shape[0]} x {shape[1]} = {shape[0] * shape[1]}",
            "wrong_patch_size",
        )
    return values.reshape(shape)
