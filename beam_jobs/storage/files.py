"""Files that Beam jobs read and write, on this machine or on an object store.

Input: paths and URIs. Output: bytes. Object stores are reached through Beam, so worker
processes need no file system of TensorFlow. Local paths go straight to the operating
system, which is faster.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.storage.stores import store_of

NUM_PARALLEL_REQUESTS = 8
"""Number of requests at a time when many objects are moved.

Each request waits some ten milliseconds for the store.
"""
PARTIAL_MARK = ".partial-"
"""Between the name of a file and what makes the name of its unfinished copy unique."""
_BLOCK_BYTES = 1 << 20


def partial_path(path: str) -> str:
    """Return a hidden path beside `path` that no other attempt writes to.

    A runner starts an attempt again while the first one may still write, on the same or
    on another machine. Host, process and thread tell a person who left a file behind.
    Two containers of one machine may share its host name and number their processes
    alike, so a random part follows.
    """
    who = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    folder, name = os.path.split(path)
    # File systems take 255 bytes for a name, of which a long host name needs 64.
    return os.path.join(folder, f".{name[:40]}{PARTIAL_MARK}{who}-{uuid.uuid4().hex[:8]}")


class StagedFile:
    """A file that is being written; `commit` makes it visible, `abandon` removes it."""

    def __init__(self, path: str) -> None:
        """Begin a file; on an object store it is opened at the first write.

        Beam cannot upload an object without bytes, and no caller needs one.
        """
        self._path = path
        self._num_bytes = 0
        self._file: IO[bytes] | None = None
        if not is_remote(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._partial = partial_path(path)
            self._file = open(self._partial, "wb")  # noqa: SIM115 - closed by commit or abandon

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self._num_bytes

    def write(self, data: bytes) -> None:
        """Append `data`.

        Raises:
            OSError: e.g. the disk is full; what was written is removed.
        """
        with self._abandoned_on_error():
            if self._file is None:
                self._file = store_of(self._path).create(self._path)
            self._file.write(data)
        self._num_bytes += len(data)

    def commit(self) -> None:
        """Close the file and make it visible.

        An object becomes visible when its upload is complete, so it needs no rename.

        Raises:
            OSError: see `write`.
        """
        with self._abandoned_on_error():
            if self._file is not None:
                self._file.close()
            if not is_remote(self._path):
                os.replace(self._partial, self._path)

    def abandon(self) -> None:
        """Remove what was written."""
        if self._file is None:
            return
        # On a full disk, closing fails as well: it writes what is left in the buffer.
        with suppress(OSError):
            self._file.close()
        if is_remote(self._path):
            store_of(self._path).delete([self._path])
        else:
            Path(self._partial).unlink(missing_ok=True)

    @contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        """Remove the file when the body fails; name it in errors of a local disk."""
        try:
            yield
        except OSError as error:
            self.abandon()
            if error.errno is None or error.filename is not None:
                raise
            # An error of an open file does not say which file it was.
            raise OSError(error.errno, error.strerror, self._path) from error
        except BaseException:
            self.abandon()
            raise


def exists(path: str) -> bool:
    """Return whether the file exists."""
    return store_of(path).exists(path) if is_remote(path) else os.path.exists(path)


def stored_content(uri: str) -> str | None:
    """Return size and checksum of an object as its store has them; None = absent."""
    return store_of(uri).content(uri)


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: there is no such file.
    """
    with store_of(path).open(path) if is_remote(path) else open(path, "rb") as file:
        return file.read()


def open_text(path: str) -> IO[str]:
    """Return an open text file in UTF-8, to be read line by line.

    Raises:
        OSError: there is no such file.
    """
    if not is_remote(path):
        return open(path)
    return io.TextIOWrapper(store_of(path).open(path), encoding="utf-8")


def read_range(path: str, offset: int, num_bytes: int) -> bytes:
    """Return `num_bytes` bytes of a file, beginning at `offset`.

    Raises:
        OSError: there is no such file, or it is too short.
    """
    with store_of(path).open_for_ranges(path) if is_remote(path) else open(path, "rb") as file:
        file.seek(offset)
        data = file.read(num_bytes)
    if data is None or len(data) != num_bytes:
        raise OSError(f"{path}: must hold {num_bytes} bytes at {offset}, got {len(data or b'')}")
    return data


def write_bytes(path: str, data: bytes) -> None:
    """Write a file that becomes visible when it is complete.

    On an object store nothing is written when `data` is empty; see `StagedFile`.
    """
    file = StagedFile(path)
    file.write(data)
    file.commit()


@contextmanager
def local_target(path: str) -> Iterator[str]:
    """Yield a local path for a writer that needs a real file.

    The file appears at `path` when the body ends, whole or not at all: nothing is left
    when the body fails.
    """
    if not is_remote(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = partial_path(path)
        try:
            yield partial
            os.replace(partial, path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch:
        local = os.path.join(scratch, "file")
        yield local
        upload(local, path)


def upload(local: str, path: str) -> None:
    """Copy a file of this machine to `path`, where it appears when it is complete."""
    staged = StagedFile(path)
    try:
        with open(local, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                staged.write(block)
    except BaseException:
        staged.abandon()
        raise
    staged.commit()


def download(path: str, local: str) -> None:
    """Copy the file at `path` to a file of this machine."""
    with (
        store_of(path).open(path) if is_remote(path) else open(path, "rb") as file,
        open(local, "wb") as copy,
    ):
        shutil.copyfileobj(file, copy, _BLOCK_BYTES)


def list_files(folder: str) -> list[str]:
    """Return all files at any depth below `folder`, sorted; empty without a folder."""
    if not is_remote(folder):
        return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
    return sorted(store_of(folder).list(folder.rstrip("/")))


def num_bytes_below(folder: str, ending: str) -> int:
    """Return the total size of the files below `folder` that have this ending."""
    if not is_remote(folder):
        return sum(path.stat().st_size for path in Path(folder).rglob(f"*{ending}"))
    sizes = store_of(folder).list(folder.rstrip("/"))
    return sum(size for path, size in sizes.items() if path.endswith(ending))


def list_names(folder: str, ending: str) -> list[str]:
    """Return the names of the files directly in `folder` that have this ending."""
    if is_remote(folder):
        names = [path.rpartition("/")[2] for path in list_files(folder)]
    else:
        # Progress bars call this twice a second, so only names are read.
        names = os.listdir(folder) if os.path.isdir(folder) else []
    return [name for name in names if name.endswith(ending)]


def delete_file(path: str) -> None:
    """Remove a file if it exists."""
    delete_files([path])


def delete_files(paths: Sequence[str]) -> None:
    """Remove those of `paths` that exist; all lie in one folder."""
    if is_remote(paths[0]):
        store_of(paths[0]).delete(paths)
        return
    for path in paths:
        Path(path).unlink(missing_ok=True)


def delete_tree(folder: str) -> None:
    """Remove `folder` with everything in it, if it exists."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    files = list_files(folder)
    if files:
        store_of(folder).delete(files)


def move_files(source: str, target: str, names: list[str]) -> None:
    """Move objects from `source` to `target`, several at a time and in any order.

    Args:
        source: URI of the folder that holds the objects.
        target: URI of the folder that gets them.
        names: paths of the objects below `source`.
    """

    def move(name: str) -> None:
        store_of(source).move(f"{source}/{name}", f"{target}/{name}")

    with ThreadPoolExecutor(min(NUM_PARALLEL_REQUESTS, len(names) or 1)) as pool:
        # list() raises the errors of the threads.
        list(pool.map(move, names))
