"""Find the shard that is damaged.

TensorFlow and Beam read many shards at once. When one has a wrong byte, their error
says "inflate() failed" or "corrupted record", and not in which file. This module reads
the files again, one by one, and names the first that is damaged.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.fingerprint import file_sha256
from beam_jobs.contracts.locations import locate
from beam_jobs.contracts.manifest import Manifest, ShardEntry

_BLOCK_BYTES = 1 << 20
_LENGTH_BYTES, _CRC_BYTES = 8, 4
# What TensorFlow, Beam and Python's gzip say of damaged bytes.
_SAYS_DAMAGED = re.compile(
    r"DataLoss|inflate\(\)|corrupted record|truncated record|pars\w+ .*example|decode_raw|"
    r"BadGzipFile|CRC|crc|Error -[35]|incorrect|end-of-stream|EOFError|DecodeError|"
    r"Not a valid TFRecord|reshape|cardinality",
    re.I,
)


class DamagedShardError(TerrapairError, ValueError):
    """A shard that cannot be read whole; one line with path, rule and cure."""

    exit_code = ExitCode.BAD_DATA


@contextmanager
def named_damage(
    files: Iterable[str] | Callable[[], Iterable[str]], manifest: Manifest | None = None
) -> Iterator[None]:
    """Name the damaged shard when the body fails to read one of `files`.

    Nothing is read when the body ends well. Other errors pass unchanged, and so do all
    errors when every file is whole.

    Args:
        files: TFRecords that the body reads, or a function that lists them.
        manifest: of the shards. Those that it names are compared with their SHA-256.

    Raises:
        DamagedShardError: a file is damaged; the message names it.
    """
    try:
        yield
    except TerrapairError:
        raise
    except Exception as error:
        if not _SAYS_DAMAGED.search(f"{type(error).__name__}: {error}"):
            raise
        entries = manifest.shards if manifest is not None else {}
        line = find_damaged(files() if callable(files) else files, entries)
        if line is None:
            raise
        raise DamagedShardError(line) from error


def find_damaged(files: Iterable[str], entries: Mapping[str, ShardEntry]) -> str | None:
    """Return one line about the first damaged file; None: all are whole.

    Args:
        files: TFRecords; those ending in .gz are gzipped.
        entries: path below the version directory -> entry of the manifest.
    """
    for path in files:
        why = why_damaged(path) or _why_other(path, entries)
        if why:
            return f"{path}: the shard is damaged: {why}; {_cure(path)}"
    return None


def why_damaged(path: str) -> str:
    """Return why a TFRecord file cannot be read whole, or ""; reads all of it."""
    try:
        with locate(path).open("rb") as file:
            if not path.endswith(".gz"):
                return _why_bad_records(path)
            if not file.read(1):
                return "the file is empty"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as content:
                return _why_bad_frames(content)  # type: ignore[arg-type]
    except FileNotFoundError:
        return "the file is missing"
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"its gzip stream is broken ({error})"


def _why_bad_frames(content: BinaryIO) -> str:
    """Return why inflated bytes are no whole records; gzip has checked the bytes."""
    num_records = 0
    while head := content.read(_LENGTH_BYTES + _CRC_BYTES):
        if len(head) < _LENGTH_BYTES + _CRC_BYTES:
            return f"it ends within the head of record {num_records}"
        (left,) = struct.unpack("<Q", head[:_LENGTH_BYTES])
        left += _CRC_BYTES
        while left:
            block = content.read(min(left, _BLOCK_BYTES))
            if not block:
                return f"it ends within record {num_records}"
            left -= len(block)
        num_records += 1
    return ""


def _why_bad_records(path: str) -> str:
    """Return why a TFRecord file without gzip is damaged: each record has its CRC."""
    import tensorflow as tf

    try:
        for _ in tf.data.TFRecordDataset(path).prefetch(1):
            pass
    except tf.errors.OpError as error:
        return str(error.message).splitlines()[0]
    return ""


def _why_other(path: str, entries: Mapping[str, ShardEntry]) -> str:
    """Return why a readable shard is not that of the manifest, or ""."""
    entry = entries.get("/".join(path.split("/")[-2:]))
    if entry is None or path.split("/")[-2].startswith("Split-"):
        return ""
    sha256 = file_sha256(path)
    if sha256 == entry.sha256:
        return ""
    return f"its SHA-256 is {sha256}, the manifest says {entry.sha256}"


def _cure(path: str) -> str:
    folder, name = os.path.split(path)
    above, split = os.path.split(folder)
    # TFX's copies of the shards. A run makes outputs anew that are not there.
    if split.startswith("Split-"):
        return f"remove the folder {above} and run again: the component then makes it again"
    if name.endswith(".tfrecord"):
        return "it is an inflated copy of the disk cache: remove it and run again"
    return "copy the shard back from where it was made, or build the version again"
