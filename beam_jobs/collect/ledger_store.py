"""The ledger on an object store, which cannot append: writers leave small objects, readers take a copy of all of them.

Input: the ledger's folder, a path or a URI. Output: writers, and a local folder that
`ledger.py` reads; on a disk that is the folder itself. Called by `fetch.py`,
`fetch_slice.py`, `export.py` and `plan.py`.

Entries wait in memory for at most FLUSH_SECONDS, so a killed job loses that much of
what it knew. What must not be lost is written by `sync` before anything rests on it:
the choice of a pair before its pixels, and a task once it is started.
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
    """What a job writes entries with; any number of threads may share it."""

    def add(self, unit: str, event: Event, **details: Any) -> int:
        """Writes one entry; returns its number, counted from 1."""

    def sync(self, number: int) -> None:
        """Returns once the entry of that number, and all before it, are where a killed job finds them."""

    def close(self) -> None:
        """Ends it; all entries are written."""


def open_writer(folder: str) -> Writer:
    """A writer into the folder, which no other writer shares a file with."""
    return StoreLedgerWriter(folder) if is_remote(folder) else LedgerWriter(Path(folder))


class StoreLedgerWriter:
    """Writes what came together as one object, every FLUSH_SECONDS and when `sync` is called."""

    def __init__(self, folder: str) -> None:
        # As the files of `LedgerWriter`: objects sort as runs followed each other.
        self._stem = f"{folder}/{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._lines: list[bytes] = []
        self._num_added = self._num_stored = self._num_objects = 0
        self._lines_lock, self._upload_lock = threading.Lock(), threading.Lock()
        self._closed = threading.Event()
        self._flusher = threading.Thread(target=self._flush, daemon=True)
        self._flusher.start()

    def add(self, unit: str, event: Event, **details: Any) -> int:
        """Takes one entry; returns its number."""
        with self._lines_lock:
            self._lines.append(ledger.line_of(unit, event, details))
            self._num_added += 1
            return self._num_added

    def sync(self, number: int) -> None:
        """Returns once the entry of that number, and all before it, are stored; most often they have been by then.

        Raises:
            OSError: the store did not take them; they are kept for the next try.
        """
        # Who waits here while another thread uploads, finds its own entries stored with
        # those of all others.
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
        """Stores the rest.

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
                _LOGGER.warning("%s: cannot be written for now: %s", self._stem, error)


class LocalCopy:
    """A ledger as a local folder.

    Attributes:
        path: of the folder.
        seconds_between_looks: how often it is worth a `refresh`: of a store each lists
            all objects.
    """

    def __init__(self, folder: str, path: Path) -> None:
        self._folder, self.path = folder, path
        self.seconds_between_looks = 10.0 if is_remote(folder) else 0.5
        self._names: set[str] = set()

    def refresh(self) -> Path:
        """Brings what has come since; an object never changes, so each is read once. Returns `path`."""
        if is_remote(self._folder):
            new = [
                name
                for name in files.list_names(self._folder, ".ndjson")
                if name not in self._names
            ]
            # A client for each thread takes longer to make than a few objects to read.
            with ThreadPoolExecutor(min(files.NUM_PARALLEL_REQUESTS, 1 + len(new) // 32)) as pool:
                # list() raises what a thread raised.
                list(pool.map(self._bring, new))
            self._names.update(new)
        return self.path

    def _bring(self, name: str) -> None:
        files.write_bytes(str(self.path / name), files.read_bytes(f"{self._folder}/{name}"))


@contextmanager
def local_copy(folder: str) -> Iterator[LocalCopy]:
    """The ledger of a folder to read; on a store a copy that is up to date after each `refresh`."""
    if not is_remote(folder):
        yield LocalCopy(folder, Path(folder))
        return
    with tempfile.TemporaryDirectory(prefix="terrapair-ledger-") as scratch:
        copy = LocalCopy(folder, Path(scratch))
        copy.refresh()
        yield copy
