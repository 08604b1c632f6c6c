"""Job folder: where a fetch or an export keeps its files.

Input: a folder and the settings that decide its content. Output: a `JobFolder`, which
Beam workers get too. One job at a time holds a folder, and a folder belongs to one
config. All workers must see the folder: a disk, a mounted volume or an object store.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beam_jobs.collect import ledger
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.contracts.reasons import Reason, is_reason
from beam_jobs.errors import DataError
from beam_jobs.storage import files, leases

_LOCK_NAME = ".lock"
_STOP_NAME = ".stop"
CONFIG_NAME = "config.json"
LOCK_TRIES = 10
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """A folder that a job holds; it pickles.

    Attributes:
        path: path of the folder, or its URI on an object store.
        run_id: id of the job that holds it.
    """

    path: str
    run_id: str

    @property
    def ledger_dir(self) -> str:
        """Folder of the ledger's files."""
        return f"{self.path}/{ledger.LEDGER_DIR}"

    @property
    def lock_path(self) -> str:
        """File that names the job which holds the folder."""
        return f"{self.path}/{_LOCK_NAME}"

    def stop(self, reason: Reason, why: str) -> None:
        """Tell all workers of the job to begin no further unit."""
        files.write_bytes(f"{self.path}/{_STOP_NAME}", f"{self.run_id}\n{reason}\n{why}".encode())

    def why_stopped(self) -> DataError | None:
        """Return why the workers of this job must stop; None = they may continue.

        A worker outlives a driver that is killed. Without this check it would continue
        beside the job that is started next.
        """
        stop = f"{self.path}/{_STOP_NAME}"
        if files.exists(stop):
            run_id, reason, why = files.read_bytes(stop).decode().split("\n", maxsplit=2)
            if run_id == self.run_id:
                return DataError(why, reason if is_reason(reason) else "stopped")
        if is_remote(self.path):
            is_held = leases.holder(self.lock_path) == self.run_id
        else:
            lock = Path(self.lock_path)
            is_held = lock.read_text() == self.run_id and _is_locked(lock)
        return None if is_held else self.orphaned()

    def orphaned(self) -> DataError:
        """Return the error of a worker whose driver is gone."""
        return DataError(f"{self.path}: the job that started this worker is gone", "orphaned")


class Watch:
    """Tells a worker's threads, before each request, whether they must stop.

    On a store it looks only every few seconds, since each look is two requests.
    """

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._lock_watch = leases.LockWatch(folder.lock_path)
        self._lock = threading.Lock()
        self._found: DataError | None = None
        self._next_look = 0.0

    def stop(self, reason: Reason, why: str) -> None:
        """Stop as `JobFolder.stop` does; the threads of this worker know it at once."""
        self._folder.stop(reason, why)
        with self._lock:
            self._found = DataError(why, reason)

    def why_stopped(self) -> DataError | None:
        """Return as `JobFolder.why_stopped`, and also notice a lease that ran out."""
        if not is_remote(self._folder.path):
            return self._folder.why_stopped()
        with self._lock:
            if self._found is None and time.monotonic() >= self._next_look:
                self._found = self._folder.why_stopped()
                if self._found is None and self._lock_watch.is_stale():
                    self._found = self._folder.orphaned()
                self._next_look = time.monotonic() + _LOOK_SECONDS
            return self._found


@contextmanager
def hold(path: str | os.PathLike[str], config_json: str) -> Iterator[JobFolder]:
    """Hold the folder for one job; its ledger is repaired first.

    On a disk the system releases the lock when the process ends. On a store a lease
    runs out (`leases.py`).

    Args:
        path: path of the folder, or its URI; made if needed.
        config_json: all settings that decide the content of the files.

    Raises:
        DataError: another job holds it, or it was begun with another config.
    """
    run_id = uuid.uuid4().hex
    if is_remote(path):
        folder = JobFolder(path=os.fspath(path).rstrip("/"), run_id=run_id)
        with leases.hold(folder.lock_path, run_id):
            _begin(folder, config_json)
            yield folder
        return
    folder = JobFolder(path=os.path.abspath(path), run_id=run_id)
    os.makedirs(folder.path, exist_ok=True)
    descriptor = os.open(folder.lock_path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, folder.path)
        _begin(folder, config_json)
        Path(folder.lock_path).write_text(run_id)
        ledger.repair(Path(folder.ledger_dir))
        yield folder
    finally:
        os.close(descriptor)


def _begin(folder: JobFolder, config_json: str) -> None:
    _check_config(folder.path, config_json)
    files.delete_file(f"{folder.path}/{_STOP_NAME}")


def _lock(descriptor: int, path: str) -> None:
    for attempt in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            # A worker that checks whether its driver lives holds the lock for a moment.
            if attempt == LOCK_TRIES - 1:
                raise DataError(
                    f"{path}: another job is writing into this folder; wait for it",
                    "folder_in_use",
                ) from error
            time.sleep(0.05)


def _is_locked(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _check_config(path: str, config_json: str) -> None:
    config_path = f"{path}/{CONFIG_NAME}"
    if not files.exists(config_path):
        files.write_bytes(config_path, config_json.encode())
    elif files.read_bytes(config_path).decode() != config_json:
        raise DataError(
            f"{path}: was begun with other settings of what is collected "
            f"(see its {CONFIG_NAME}); choose another folder",
            "other_config",
        )
