"""Clients of object stores, through Beam: what `storage.py` asks for remote paths.

URIs in, open files and names out. Any store that Beam knows goes through its
`FileSystems`; S3 through the client below them, since Beam's S3 file system makes a new
boto3 client for every call (0.1 s of CPU each), which would double the cost of a strip.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Protocol

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import messages
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

_RAW = CompressionTypes.UNCOMPRESSED
"""Beam would unpack and pack by the name's ending."""
_local = threading.local()


class Store(Protocol):
    """What is needed of a store. All calls take whole URIs and raise OSError."""

    def create(self, path: str) -> IO[bytes]:
        """An object to write; it appears when it is closed."""

    def open(self, path: str) -> IO[bytes]:
        """An object to read, with some read-ahead."""

    def open_for_ranges(self, path: str) -> IO[bytes]:
        """An object to read pieces of: no more is fetched than is asked for."""

    def exists(self, path: str) -> bool:
        """Whether there is such an object."""

    def list(self, folder: str) -> Mapping[str, int]:
        """All objects below a folder, and their bytes."""

    def move(self, source: str, target: str) -> None:
        """Copies one object and deletes the source."""

    def delete(self, paths: Sequence[str]) -> None:
        """Deletes objects; one that is not there counts as deleted."""


def store_of(path: str) -> Store:
    """The client for `path`; one per thread, since the client keeps the state of a download.

    Beam's pipeline options, in force in every worker and set by the driver, name
    endpoint and keys; else the environment does.
    """
    if not path.startswith("s3://"):
        return _BeamStore()
    options = FileSystems.get_filesystem(path)._options  # type: ignore[attr-defined]
    if getattr(_local, "options", None) is not options:
        _local.options, _local.store = options, _S3Store(options)
    return _local.store


class _BeamStore:
    def create(self, path: str) -> IO[bytes]:
        return FileSystems.create(path, compression_type=_RAW)

    def open(self, path: str) -> IO[bytes]:
        return FileSystems.open(path, compression_type=_RAW)

    def open_for_ranges(self, path: str) -> IO[bytes]:
        return self.open(path)

    def exists(self, path: str) -> bool:
        return FileSystems.exists(path)

    def list(self, folder: str) -> Mapping[str, int]:
        (matched,) = FileSystems.match([f"{folder}/**"])
        return {found.path: found.size_in_bytes for found in matched.metadata_list}

    def move(self, source: str, target: str) -> None:
        FileSystems.rename([source], [target])

    def delete(self, paths: Sequence[str]) -> None:
        FileSystems.delete(list(paths))


class _S3Store:
    def __init__(self, options: Any) -> None:
        self._s3 = s3io.S3IO(options=options)

    def create(self, path: str) -> IO[bytes]:
        with _named(path):
            return self._s3.open(path, "wb")

    def open(self, path: str) -> IO[bytes]:
        with _named(path):
            return self._s3.open(path, "rb")

    def open_for_ranges(self, path: str) -> IO[bytes]:
        # The client itself reads 16 MiB ahead: too much for one patch.
        with _named(path):
            return io.BufferedReader(self._s3.open(path, "rb").detach(), buffer_size=1)

    def exists(self, path: str) -> bool:
        with _named(path):
            return self._s3.exists(path)

    def list(self, folder: str) -> Mapping[str, int]:
        with _named(folder):
            return dict(self._s3.list_files(f"{folder}/"))

    def move(self, source: str, target: str) -> None:
        ((_, _, error),) = self._s3.rename_files([(source, target)])
        if error is not None:
            raise OSError(f"{source}: cannot be moved to {target}: {error}") from error

    def delete(self, paths: Sequence[str]) -> None:
        for path, error in self._s3.delete_files(list(paths)):
            if error is not None:
                raise OSError(f"{path}: cannot be deleted: {error}") from error


@contextmanager
def _named(path: str) -> Iterator[None]:
    """The client's own errors, which do not name the object, as OSErrors that do."""
    try:
        yield
    except messages.S3ClientError as error:
        raise OSError(f"{path}: {error}") from error
