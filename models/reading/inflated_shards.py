"""The disk cache: inflated copies of gzipped shards, several times faster to read.

Input: gzip TFRecords, also on an object store, and a local folder. Output: paths of
plain TFRecords. A copy is named by the SHA-256 of its shard, so it is never taken for
other data. Several processes may share a folder.
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

from beam_jobs.contracts.fingerprint import file_sha256
from beam_jobs.contracts.locations import locate

NUM_THREADS = 8
"""Shards inflated at the same time; zlib releases Python's lock while it works."""
_BLOCK_BYTES = 1 << 20


def inflate(files: Sequence[str], cache_dir: str) -> tuple[str, ...]:
    """Return paths of inflated copies of `files`, in that order; make missing ones.

    Nothing in the folder is ever removed. Delete it, or files of it, when no training
    runs.

    Raises:
        ValueError: a file is not a complete gzip file.
        OSError: the folder cannot be written.
    """
    folder = Path(cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return tuple(pool.map(lambda path: str(_inflated(path, folder)), files))


def _inflated(path: str, folder: Path) -> Path:
    """Return the inflated copy of one shard, after making it if it is missing."""
    target = folder / f"{file_sha256(path)}.tfrecord"
    if target.exists():
        return target
    partial = folder / f".{target.name}.partial"
    # Append mode does not truncate the file: another process may be writing it. The
    # lock ends with its process, however that ends.
    with partial.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if target.exists():
            partial.unlink(missing_ok=True)
            return target
        file.truncate(0)
        # Opened outside of the try: an unreadable shard is no fault of the folder.
        with locate(path).open("rb") as compressed:
            try:
                with gzip.GzipFile(fileobj=compressed) as content:
                    shutil.copyfileobj(content, file, _BLOCK_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"{path}: must be a whole gzip file: {error}") from error
            except OSError as error:
                raise OSError(
                    f"input.cache_dir: cannot write to {folder}: {error.strerror}"
                ) from error
        file.flush()
        # Sync before the rename: otherwise a power cut could leave a short copy under
        # the final name.
        os.fsync(file.fileno())
        os.replace(partial, target)
    return target
