"""Clients of object stores, through Beam.

Input: URIs. Output: open files and names. Most stores are reached through Beam's
`FileSystems`, S3 through the client below them, which can read ranges and tells the
checksum of an object without asking twice.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Protocol

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import messages
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.contracts.object_store import check_reachable
from beam_jobs.quick_beam import S3Client

_RAW = CompressionTypes.UNCOMPRESSED
"""Keeps Beam from packing and unpacking files by the ending of their names."""
_SPECIAL = re.compile(r"[*?\[]")
"""Characters with a meaning in Beam's patterns."""
_local = threading.local()


class Store(Protocol):
    """The operations on a store. All take complete URIs and raise OSError."""

    def create(self, path: str) -> IO[bytes]:
        """Return a new object to write; it becomes visible when it is closed."""

    def open(self, path: str) -> IO[bytes]:
        """Return an object to read as a whole; the client reads ahead."""

    def open_for_ranges(self, path: str) -> IO[bytes]:
        """Return an object to read in parts; only these parts are fetched."""

    def exists(self, path: str) -> bool:
        """Return whether the object exists."""

    def content(self, path: str) -> str | None:
        """Return size and checksum of an object as the store has them; None = absent.

        Nothing is downloaded. An object with another content has another value.
        """

    def list(self, folder: str) -> Mapping[str, int]:
        """Return the URI and the size in bytes of all objects below a folder."""

    def move(self, source: str, target: str) -> None:
        """Copy one object and delete the source."""

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects. An object that does not exist counts as deleted."""


def ensure_options() -> None:
    """Let stores be opened where no Beam job has set its options yet.

    Endpoint and keys then come from the environment.
    """
    if FileSystems._pipeline_options is None:
        FileSystems.set_options(PipelineOptions([]))


def store_of(path: str) -> Store:
    """Return the client for `path`.

    Each thread has its own S3 client of Beam, because that keeps the state of a
    download. Endpoint and keys come from Beam's pipeline options, which the driver sets
    and all workers get, or else from the environment.

    Raises:
        UnreachableStoreError: the store does not answer.
    """
    if not path.startswith("s3://"):
        return _BeamStore()
    check_reachable(path)
    options = FileSystems.get_filesystem(path)._options  # type: ignore[attr-defined]
    if not hasattr(_local, "store") or _local.options is not options:
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

    def content(self, path: str) -> str | None:
        if not FileSystems.exists(path):
            return None
        system = FileSystems.get_filesystem(path)
        return f"{system.size(path)} {system.checksum(path)}"

    def list(self, folder: str) -> Mapping[str, int]:
        (matched,) = FileSystems.match([f"{escaped(folder)}/**"])
        return {found.path: found.size_in_bytes for found in matched.metadata_list}

    def move(self, source: str, target: str) -> None:
        FileSystems.rename([source], [target])

    def delete(self, paths: Sequence[str]) -> None:
        # Beam takes the paths for patterns.
        FileSystems.delete([escaped(path) for path in paths])


class _S3Store:
    def __init__(self, options: PipelineOptions) -> None:
        self._s3 = s3io.S3IO(client=S3Client(options))

    def create(self, path: str) -> IO[bytes]:
        with _named(path):
            return self._s3.open(path, "wb")

    def open(self, path: str) -> IO[bytes]:
        with _named(path):
            return self._s3.open(path, "rb")

    def open_for_ranges(self, path: str) -> IO[bytes]:
        # Without this the client reads 16 MiB ahead, far more than one patch.
        with _named(path):
            return io.BufferedReader(self._s3.open(path, "rb").detach(), buffer_size=1)

    def exists(self, path: str) -> bool:
        with _named(path):
            return self._s3.exists(path)

    def content(self, path: str) -> str | None:
        with _named(path):
            try:
                found = self._s3._s3_object(path)
            except messages.S3ClientError as error:
                if error.code == 404:
                    return None
                raise
        return f"{found.size} {found.etag}"

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


def escaped(path: str) -> str:
    """Return a pattern of Beam that matches `path` itself and nothing else.

    Source: `FileSystem.translate_pattern` of Apache Beam, which knows `*`, `?` and
    `[...]` and no backslash.
    """
    return _SPECIAL.sub(r"[\g<0>]", path)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn errors of the S3 client into OSErrors that name the object."""
    try:
        yield
    except messages.S3ClientError as error:
        raise OSError(f"{path}: {error}") from error
