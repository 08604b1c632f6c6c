"""Claims: which run of a job may write into a folder.

A job on a cluster outlives the driver that was killed. Without a claim it would go on
writing beside the run that is started next. Each run writes its id into the folder, and
its workers look before they write. The job of an older run then fails by itself, on any
runner, also when nobody can reach the cluster to cancel it.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass

from beam_jobs.errors import DataError
from beam_jobs.storage import files

CLAIM_NAME = "claim.json"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A run's claim on a folder; it pickles, so that workers get it too.

    Attributes:
        folder: folder that the run writes into, path or URI.
        run_id: id of the run.
        flink_master: address of the REST interface of the Flink cluster that runs the
            job; "" = another engine.
    """

    folder: str
    run_id: str
    flink_master: str = ""

    @property
    def job_name(self) -> str:
        """Name of the run's job on a cluster; no other job has it."""
        return f"terrapair-{self.run_id}"

    def check(self) -> None:
        """Check that the run still holds the folder.

        Raises:
            DataError: reason orphaned; a newer run took it, or the run has ended. Or
                this worker does not see the folder.
        """
        found = read(self.folder)
        if found is None:
            raise DataError(
                f"{self.folder}: a worker found no {CLAIM_NAME} there: the run that started it has "
                "ended, or the worker does not see the folder, which needs the same path on all "
                "machines",
                "orphaned",
            )
        if found.run_id != self.run_id:
            raise DataError(
                f"{self.folder}: another run has taken the place of the one that started this job, "
                "which stops",
                "orphaned",
            )


def take(folder: str, flink_master: str = "") -> Claim:
    """Take the folder for a new run and return its claim."""
    claim = Claim(folder=folder, run_id=uuid.uuid4().hex[:12], flink_master=flink_master)
    files.write_bytes(f"{folder}/{CLAIM_NAME}", json.dumps(asdict(claim)).encode())
    return claim


def read(folder: str) -> Claim | None:
    """Return the claim of the last run that took the folder; None = there is none."""
    path = f"{folder}/{CLAIM_NAME}"
    if not files.exists(path):
        return None
    try:
        # The folder may have been moved since.
        return Claim(**{**json.loads(files.read_bytes(path)), "folder": folder})
    except (OSError, ValueError, TypeError):
        return None


def drop(folder: str) -> None:
    """Remove the claim: no run writes into the folder any more."""
    files.delete_file(f"{folder}/{CLAIM_NAME}")
