"""The disk cache: inflated copies of gzipped shards, which are read several times faster.

Input: gzip TFRecords, which may lie on an object store, and a local folder. Output:
paths of plain TFRecords. Called by `record_source.py`. A copy is named by the SHA-256
of its shard, so other data never meets it; processes may share a folder.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from beam_jobs.contracts.fingerprint import file_sha256

NUM_THREADS = 8
"""Shards inflated at a time; zlib leaves Python's lock while it works."""
_BLOCK_BYTES = 1 << 20


def inflate(files: Sequence[str], cache_dir: str) -> tuple[str, ...]:
    """Paths of the inflated copies of `files`, in their order; what the folder lacks is made.

    A folder is never tidied up: delete it, or files of it, when no training runs.

    Raises:
        ValueError: a file is no whole gzip file.
        OSError: the folder cannot be written.
    """
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return tuple(pool.map(lambda path: str(_inflated(path, folder)), files))


def _inflated(path: str, folder: Path) -> Path:
    target = folder / f"{file_sha256(path)}.tfrecord"
    if target.exists():
        return target
    partial = folder / f".{target.name}.partial"
    # Opened without cutting it: another process may be writing it. Its lock ends with
    # the process, however that ends.
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if target.exists():
            partial.unlink(missing_ok=True)
            return target
        file.truncate(0)
        try:
            with (
                tf.io.gfile.GFile(path, "rb") as compressed,
                gzip.GzipFile(fileobj=compressed) as content,
            ):
                shutil.copyfileobj(content, file, _BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: must be a whole gzip file: {error}") from error
        except OSError as error:
            raise OSError(f"input.cache_dir: cannot write to {folder}: {error.strerror}") from error
        file.flush()
        # A name must never stand before its content: after a power cut the copy would
        # be short, and trusted.
        os.fsync(file.fileno())
        os.replace(partial, target)
    return target
