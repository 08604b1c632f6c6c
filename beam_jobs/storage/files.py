"""Storage: what the Beam jobs read and write, on this machine or on an object store, through Beam.

Paths and URIs in, bytes out. `spool.py`, `writers.py` and `build.py` call it, in worker
processes that need no TensorFlow file system. Local paths go straight to the operating
system, so a local build costs what it did.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.storage.stores import store_of

NUM_PARALLEL_REQUESTS = 8
"""Requests at a time where many objects are moved: each waits some ten milliseconds for the store."""
_BLOCK_BYTES = 1 << 20


class StagedFile:
    """A file being written: `commit` makes it visible whole, `abandon` leaves nothing."""

    def __init__(self, path: str) -> None:
        """Opens nothing yet on a store: Beam cannot upload an object of no bytes, and an empty one is not needed."""
        self._path = path
        self._num_bytes = 0
        self._file: IO[bytes] | None = None
        if not is_remote(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # A retried or a second worker, and another thread, must not write into the
            # same file.
            self._partial = f"{path}.partial-{os.getpid()}-{threading.get_ident()}"
            self._file = open(self._partial, "wb")  # noqa: SIM115 - closed by commit or abandon

    def tell(self) -> int:
        """Bytes written."""
        return self._num_bytes

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        if self._file is None:
            self._file = store_of(self._path).create(self._path)
        self._file.write(data)
        self._num_bytes += len(data)

    def commit(self) -> None:
        """Ends the file. An object appears when its upload is complete, so on a store nothing is renamed."""
        if self._file is not None:
            self._file.close()
        if not is_remote(self._path):
            os.replace(self._partial, self._path)

    def abandon(self) -> None:
        """Removes what was written."""
        if self._file is None:
            return
        self._file.close()
        if is_remote(self._path):
            store_of(self._path).delete([self._path])
        else:
            os.unlink(self._partial)


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return store_of(path).exists(path) if is_remote(path) else os.path.exists(path)


def read_bytes(path: str) -> bytes:
    """All of a file.

    Raises:
        OSError: there is none.
    """
    with store_of(path).open(path) if is_remote(path) else open(path, "rb") as file:
        return file.read()


def open_text(path: str) -> IO[str]:
    """A text file to read line by line, UTF-8.

    Raises:
        OSError: there is none.
    """
    if not is_remote(path):
        return open(path)
    return io.TextIOWrapper(store_of(path).open(path), encoding="utf-8")


def read_range(path: str, offset: int, num_bytes: int) -> bytes:
    """`num_bytes` of a file from `offset` on.

    Raises:
        OSError: there is no such file, or it ends before.
    """
    with store_of(path).open_for_ranges(path) if is_remote(path) else open(path, "rb") as file:
        file.seek(offset)
        data = file.read(num_bytes)
    if data is None or len(data) != num_bytes:
        raise OSError(f"{path}: must hold {num_bytes} bytes at {offset}, got {len(data or b'')}")
    return data


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file that appears whole; on a store none for no bytes, see `StagedFile`."""
    file = StagedFile(path)
    file.write(data)
    file.commit()


@contextmanager
def local_target(path: str) -> Iterator[str]:
    """A local path to write a file to that belongs at `path`: itself, or a scratch file that is uploaded at the end.

    For writers that need a real file. Nothing is uploaded when the body fails.
    """
    if not is_remote(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        local = os.path.join(scratch, "file")
        yield local
        staged = StagedFile(path)
        try:
            with open(local, "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    staged.write(block)
        except BaseException:
            staged.abandon()
            raise
        staged.commit()


def list_files(folder: str) -> list[str]:
    """All files at any depth below `folder`, sorted; none when there is no such folder."""
    if not is_remote(folder):
        return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
    return sorted(store_of(folder).list(folder.rstrip("/")))


def num_bytes_below(folder: str, ending: str) -> int:
    """Bytes of all files at any depth below `folder` whose names end like that."""
    if not is_remote(folder):
        return sum(path.stat().st_size for path in Path(folder).rglob(f"*{ending}"))
    sizes = store_of(folder).list(folder.rstrip("/"))
    return sum(size for path, size in sizes.items() if path.endswith(ending))


def list_names(folder: str, ending: str) -> list[str]:
    """Names of the files directly in `folder` that end like that; none when there is no such folder."""
    if is_remote(folder):
        names = [path.rpartition("/")[2] for path in list_files(folder)]
    else:
        # Asked twice a second: names only, no look at each file.
        names = os.listdir(folder) if os.path.isdir(folder) else []
    return [name for name in names if name.endswith(ending)]


def delete_file(path: str) -> None:
    """Removes a file, if it is there."""
    delete_files([path])


def delete_files(paths: Sequence[str]) -> None:
    """Removes files of one folder, where they are there."""
    if is_remote(paths[0]):
        store_of(paths[0]).delete(paths)
        return
    for path in paths:
        Path(path).unlink(missing_ok=True)


def delete_tree(folder: str) -> None:
    """Removes `folder` and all below it, if it is there."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    files = list_files(folder)
    if files:
        store_of(folder).delete(files)


def move_files(source: str, target: str, names: list[str]) -> None:
    """Moves the objects `names` from below `source` to below `target`, several at a time, in no order."""

    def move(name: str) -> None:
        store_of(source).move(f"{source}/{name}", f"{target}/{name}")

    with ThreadPoolExecutor(min(NUM_PARALLEL_REQUESTS, len(names) or 1)) as pool:
        # list() raises what a thread raised.
        list(pool.map(move, names))
