"""Locks: one job at a time on one output, on this machine or on an object store.

Input: the path or URI of a lock file. On a disk the operating system releases the lock
when its process ends, however it ends, so nothing has to be tidied up after `kill -9`.
On an object store a lease runs out (`leases.py`).

The lock is that of `flock`. On NFS, Linux passes it on to the server, so machines that
share a folder see each other's locks. The lock belongs to the open file and not to the
process: a second job in one process is refused too.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from beam_jobs.contracts.object_store import is_remote
from beam_jobs.errors import DataError

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
"""Errors of a file system that has no locks, such as some network mounts."""
_LOGGER = logging.getLogger(__name__)


@contextmanager
def hold(lock_path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold the lock at `lock_path` until the body ends, and remove its file then.

    If a killed job left a lock on an object store, this waits until its lease has run
    out.

    Args:
        lock_path: path or URI of the lock file; its folder is made if needed.
        what: what is held, for the message, such as the folder of the output.

    Raises:
        DataError: another job holds the lock. The message names that job where it is
            known.
    """
    if is_remote(lock_path):
        # Only now: they import Beam.
        from beam_jobs.storage import leases, stores

        stores.ensure_options()
        with leases.hold(os.fspath(lock_path), uuid.uuid4().hex):
            yield
        return
    path = os.path.abspath(lock_path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = _locked(path, what)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        # Removed while it is held: `_locked` notices when its file is no longer the one
        # at this path.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(descriptor)


def find_held(lock_paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return the path of a lock that another job holds; "" = there is none.

    Locks on an object store are watched: if a killed job left one, this waits until
    its lease has run out.
    """
    paths = [os.fspath(path) for path in lock_paths]
    for path in paths:
        if not is_remote(path) and _is_held(path):
            return path
    remote = [path for path in paths if is_remote(path)]
    if not remote:
        return ""
    from beam_jobs.storage import leases, stores

    stores.ensure_options()
    return leases.find_held(remote)


def _is_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    finally:
        os.close(descriptor)
    return False


def _locked(path: str, what: str) -> int:
    """Return the descriptor of the locked file at `path`."""
    while True:
        # Not inheritable, so no child process keeps the lock of a parent that was
        # killed.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            os.close(descriptor)
            raise DataError(
                f"{what}: another job is working there{f' ({holder})' if holder else ''}; "
                "wait for it",
                "folder_in_use",
            ) from error
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                os.close(descriptor)
                raise
            _LOGGER.warning(
                "%s: this file system has no locks (%s), so a second job there is not noticed",
                what,
                error.strerror,
            )
            return descriptor
        if _is_at(path, descriptor):
            return descriptor
        # The last holder removed the file between `open` and `flock`.
        os.close(descriptor)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))
