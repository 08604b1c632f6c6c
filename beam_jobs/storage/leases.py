"""Leases: one job at a time in a folder of an object store, which has no locks.

Input: the URI of a lock object. The holder rewrites it every few seconds while it
lives. A lock that does not change any more belongs to a job that was killed. The clocks
of other machines are not read.

Limits: Beam has no conditional writes of S3. If two jobs begin in the same half second,
both may believe that they are the holder until the first renewal. A holder that cannot
reach the store for LEASE_SECONDS can lose its folder to a job that starts then; it
notices this when it can reach the store again.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from beam_jobs.errors import DataError
from beam_jobs.storage import files

LEASE_SECONDS = 20.0
"""A lock that has not changed for so long belongs to nobody."""
_RENEWALS_PER_LEASE = 5
"""Renewals within one lease, so that a store may be slow or down for a moment."""
_SETTLE_SECONDS = 0.5
_LOGGER = logging.getLogger(__name__)


class LockWatch:
    """Tells whether the holder of a lock still renews it.

    The first look, and a look after a change, never call the lock stale.
    """

    def __init__(self, path: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._path, self._lease_seconds = path, lease_seconds
        self._content: bytes | None = None
        self._changed_at = time.monotonic()

    def is_stale(self) -> bool:
        """Return whether this watch has seen no change for the length of a lease."""
        content, now = _content(self._path), time.monotonic()
        if content != self._content:
            self._content, self._changed_at = content, now
        return now - self._changed_at >= self._lease_seconds


def holder(path: str) -> str:
    """Return the name of the job that wrote the lock last; "" = there is none."""
    return (_content(path) or b"").partition(b"\n")[0].decode()


@contextmanager
def hold(path: str, name: str, lease_seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the lock at `path` under a name that no other job has.

    If a killed job left a lock, this waits until its lease has run out.

    Raises:
        DataError: another job holds it.
    """
    in_use = DataError(
        f"{path}: another job is writing into this folder; wait for it", "folder_in_use"
    )
    left, watch = _content(path), LockWatch(path, lease_seconds)
    while left is not None and not watch.is_stale():
        time.sleep(_SETTLE_SECONDS)
        now = _content(path)
        if now is None:
            break
        if now != left:
            raise in_use
    files.write_bytes(path, _text(name, 0))
    # If two jobs found the lock free at the same moment, both have written it by then.
    # The last one has it.
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


def find_held(paths: Sequence[str], lease_seconds: float = LEASE_SECONDS) -> str:
    """Return a lock whose holder renews it; "" = there is none.

    Locks of killed jobs are watched for the length of a lease, and deleted then.
    """
    began, seen = time.monotonic(), {path: _content(path) for path in paths}
    while seen := {path: content for path, content in seen.items() if content is not None}:
        time.sleep(_SETTLE_SECONDS)
        now = {path: _content(path) for path in seen}
        for path, content in now.items():
            if content is not None and content != seen[path]:
                return path
        if time.monotonic() - began >= lease_seconds:
            for path in now:
                files.delete_file(path)
            return ""
        seen = now
    return ""


def _renew(path: str, name: str, every_s: float, ended: threading.Event) -> None:
    for number in itertools.count(1):
        if ended.wait(every_s):
            return
        try:
            if holder(path) != name:
                return
            files.write_bytes(path, _text(name, number))
        except OSError as error:
            _LOGGER.warning("%s: cannot renew the lock, trying again: %s", path, error)


def _text(name: str, number: int) -> bytes:
    return f"{name}\n{number}".encode()


def _content(path: str) -> bytes | None:
    return files.read_bytes(path) if files.exists(path) else None
