"""Job folder: where a fetch or an export keeps what came; held by one job at a time, for one config.

Input: folder and what decides its content. Output: a `JobFolder`, which Beam workers get too. Called by `fetch.py`,
`export.py` and `plan.py`. The folder must be one that all workers see: a disk, a mounted volume.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beam_jobs import ledger
from beam_jobs.errors import DataError

_LOCK_NAME = ".lock"
_STOP_NAME = ".stop"
CONFIG_NAME = "config.json"
LOCK_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """A folder that a job holds. Pickles.

    Attributes:
        path: of the folder.
        run_id: of the job that holds it.
    """

    path: Path
    run_id: str

    @property
    def ledger_dir(self) -> Path:
        """Where the ledger's files are."""
        return self.path / ledger.LEDGER_DIR

    def stop(self, reason: str, why: str) -> None:
        """Tells all workers of the job to begin nothing more."""
        partial = self.path / f"{_STOP_NAME}.{uuid.uuid4().hex}"
        partial.write_text(f"{self.run_id}\n{reason}\n{why}")
        os.replace(partial, self.path / _STOP_NAME)

    def why_stopped(self) -> DataError | None:
        """Why the workers of this job must begin nothing more; None = they may go on.

        A worker outlives a driver that is killed, and would go on asking beside the job that is started next.
        """
        stop = self.path / _STOP_NAME
        if stop.exists():
            run_id, reason, why = stop.read_text().split("\n", maxsplit=2)
            if run_id == self.run_id:
                return DataError(why, reason)
        lock = self.path / _LOCK_NAME
        if lock.read_text() != self.run_id or not _is_locked(lock):
            return DataError(f"{self.path}: the job that started this worker is gone", "orphaned")
        return None


@contextmanager
def hold(path: Path, config_json: str) -> Iterator[JobFolder]:
    """Holds the folder for one job; its ledger is repaired first. The system lets go of it when the process ends.

    Args:
        path: of the folder; made if needed.
        config_json: all that decides the content of the files.

    Raises:
        DataError: another job holds it, or it was begun with another config.
    """
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    lock = path / _LOCK_NAME
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(descriptor, path)
        folder = JobFolder(path=path, run_id=uuid.uuid4().hex)
        _check_config(path, config_json)
        (path / _STOP_NAME).unlink(missing_ok=True)
        lock.write_text(folder.run_id)
        ledger.repair(folder.ledger_dir)
        yield folder
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    for attempt in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            # A worker that asks whether its driver lives holds the lock for a moment.
            if attempt == LOCK_TRIES - 1:
                raise DataError(f"{path}: another job is writing into this folder", "folder_in_use") from error
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


def _check_config(path: Path, config_json: str) -> None:
    config_path = path / CONFIG_NAME
    if not config_path.exists():
        partial = path / f".{CONFIG_NAME}.partial"
        partial.write_text(config_json)
        os.replace(partial, config_path)
    elif config_path.read_text() != config_json:
        raise DataError(
            f"{path}: was begun with other settings of what is collected (see its {CONFIG_NAME}); choose another folder",
            "other_config",
        )
