"""The ledger on an object store, which cannot append to files.

Input: the ledger's folder, a path or a URI. Output: writers that store small objects,
and a local folder for `ledger.py` to read. On a disk that is the folder itself.

Entries wait in memory for at most FLUSH_SECONDS, so a killed job loses that much. Two
kinds of entries must not be lost and are stored by `sync`: the choice of a pair before
its pixels are written, and a task once it is started.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from beam_jobs.collect import ledger
from beam_jobs.collect.ledger import Event, LedgerWriter
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.storage import files

FLUSH_SECONDS = 2.0
_LOGGER = logging.getLogger(__name__)


class Writer(Protocol):
    """Writes entries; any number of threads may share it."""

    def add(self, unit: str, event: Event, **details: Any) -> int:
        """Write one entry and return its number, counted from 1."""

    def sync(self, number: int) -> None:
        """Return once this entry and all before it would survive a killed job."""

    def close(self) -> None:
        """Write all entries and end the writer."""


def open_writer(folder: str) -> Writer:
    """Return a writer into the folder; no other writer shares its files."""
    return StoreLedgerWriter(folder) if is_remote(folder) else LedgerWriter(Path(folder))


class StoreLedgerWriter:
    """Stores waiting entries as one object.

    It does so every FLUSH_SECONDS, and when `sync` is called.
    """

    def __init__(self, folder: str) -> None:
        # As with the files of `LedgerWriter`, names sort in the order of the runs.
        self._stem = f"{folder}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._lines: list[bytes] = []
        self._num_added = self._num_stored = self._num_objects = 0
        self._lines_lock, self._upload_lock = threading.Lock(), threading.Lock()
        self._closed = threading.Event()
        self._flusher = threading.Thread(target=self._flush, daemon=True)
        self._flusher.start()

    def add(self, unit: str, event: Event, **details: Any) -> int:
        """Take one entry and return its number."""
        with self._lines_lock:
            self._lines.append(ledger.line_of(unit, event, details))
            self._num_added += 1
            return self._num_added

    def sync(self, number: int) -> None:
        """Return once the entry of that number and all before it are stored.

        Most often they are already stored.

        Raises:
            OSError: the store did not take them; they are kept for the next try.
        """
        # A thread that waits here while another uploads finds its own entries stored
        # with the others.
        with self._upload_lock:
            if self._num_stored >= number:
                return
            with self._lines_lock:
                lines = list(self._lines)
            files.write_bytes(f"{self._stem}-{self._num_objects:08d}.ndjson", b"".join(lines))
            with self._lines_lock:
                del self._lines[: len(lines)]
            self._num_objects += 1
            self._num_stored += len(lines)

    def close(self) -> None:
        """Store the rest.

        Raises:
            OSError: the store did not take it.
        """
        self._closed.set()
        self._flusher.join()
        self.sync(self._num_added)

    def _flush(self) -> None:
        while not self._closed.wait(FLUSH_SECONDS):
            try:
                self.sync(self._num_added)
            except OSError as error:
                _LOGGER.warning("%s: cannot store entries, trying again: %s", self._stem, error)


class LocalCopy:
    """A ledger as a local folder.

    Attributes:
        path: path of the folder.
        seconds_between_looks: how often a `refresh` is worth it; on a store each one
            lists all objects.
    """

    def __init__(self, folder: str, path: Path) -> None:
        self._folder, self.path = folder, path
        self.seconds_between_looks = 10.0 if is_remote(folder) else 0.5
        self._names: set[str] = set()

    def refresh(self) -> Path:
        """Fetch the objects that are new and return `path`.

        Objects never change, so each is read once.
        """
        if is_remote(self._folder):
            new = [
                name
                for name in files.list_names(self._folder, ".ndjson")
                if name not in self._names
            ]
            # A thread makes a client of its own, which takes longer than reading a few
            # objects.
            with ThreadPoolExecutor(min(files.NUM_PARALLEL_REQUESTS, 1 + len(new) // 32)) as pool:
                # list() raises the exception of a thread, if there was one.
                list(pool.map(self._bring, new))
            self._names.update(new)
        return self.path

    def _bring(self, name: str) -> None:
        files.write_bytes(str(self.path / name), files.read_bytes(f"{self._folder}/{name}"))


@contextmanager
def local_copy(folder: str) -> Iterator[LocalCopy]:
    """Give the ledger of a folder for reading.

    On a store it is a copy, which each `refresh` brings up to date.
    """
    if not is_remote(folder):
        yield LocalCopy(folder, Path(folder))
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-ledger-") as scratch:
        copy = LocalCopy(folder, Path(scratch))
        copy.refresh()
        yield copy
