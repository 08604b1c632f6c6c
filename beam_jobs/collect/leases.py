"""Leases: one job at a time in a folder of an object store, which has no locks.

Input: the URI of a lock object. Who holds it writes it anew every few seconds while it
lives; a lock that does not change any more is that of a job that was killed. No clock
of another machine is read. Called by `job_folder.py`.

Limits: S3's conditional writes are not in Beam, so of two jobs that begin in the same
half second both may see themselves as the holder until the first renewal; and a holder
that is cut off from the store for LEASE_SECONDS can lose its folder to a job that is
started then, which it notices when it is back.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from beam_jobs.errors import DataError
from beam_jobs.storage import files

LEASE_SECONDS = 20.0
"""A lock that has not changed for so long is nobody's."""
_RENEWALS_PER_LEASE = 5
"""Tries before the lease is lost: a store that is slow or down for a moment costs nothing."""
_SETTLE_SECONDS = 0.5
_LOGGER = logging.getLogger(__name__)


class LockWatch:
    """Tells whether the holder still renews; the first look, or one after a change, never says that it does not."""

    def __init__(self, path: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._path, self._lease_seconds = path, lease_seconds
        self._content: bytes | None = None
        self._changed_at = time.monotonic()

    def is_stale(self) -> bool:
        """Whether the lock has been the same for a lease, as far as this watch has seen."""
        content, now = _content(self._path), time.monotonic()
        if content != self._content:
            self._content, self._changed_at = content, now
        return now - self._changed_at >= self._lease_seconds


def holder(path: str) -> str:
    """Name of the job that wrote the lock last; "" = there is none."""
    return (_content(path) or b"").partition(b"\n")[0].decode()


@contextmanager
def hold(path: str, name: str, lease_seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Holds the lock at `path` under `name`, which no other job has.

    Waits that long for a lock that a killed job has left.

    Raises:
        DataError: another job holds it.
    """
    in_use = DataError(f"{path}: another job is writing into this folder", "folder_in_use")
    left, watch = _content(path), LockWatch(path, lease_seconds)
    while left is not None and not watch.is_stale():
        time.sleep(_SETTLE_SECONDS)
        now = _content(path)
        if now is None:
            break
        if now != left:
            raise in_use
    files.write_bytes(path, _text(name, 0))
    # Two jobs that found it free in the same moment have both written by then; the last
    # one has it.
    time.sleep(_SETTLE_SECONDS)
    if holder(path) != name:
        raise in_use
    ended = threading.Event()
    thread = threading.Thread(
        target=_renew, args=(path, name, lease_seconds / _RENEWALS_PER_LEASE, ended), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if holder(path) == name:
            files.delete_file(path)


def _renew(path: str, name: str, every_s: float, ended: threading.Event) -> None:
    for number in itertools.count(1):
        if ended.wait(every_s):
            return
        try:
            if holder(path) != name:
                return
            files.write_bytes(path, _text(name, number))
        except OSError as error:
            _LOGGER.warning("%s: cannot be renewed for now: %s", path, error)


def _text(name: str, number: int) -> bytes:
    return f"{name}\n{number}".encode()


def _content(path: str) -> bytes | None:
    return files.read_bytes(path) if files.exists(path) else None
