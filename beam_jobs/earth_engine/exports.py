"""Batch exports: the same pixels as files in a Google Cloud Storage bucket, made by tasks that one watches.

Input: `PixelRequest`. Output: task ids and their states. Called by `export` after `connection.connect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from beam_jobs.earth_engine.requests import PixelRequest

FileFormat = Literal["GEO_TIFF", "TFRECORD"]
State = Literal["PENDING", "RUNNING", "CANCELLING", "SUCCEEDED", "CANCELLED", "FAILED"]
FINAL_STATES: frozenset[State] = frozenset({"SUCCEEDED", "CANCELLED", "FAILED"})


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """Where an export stands.

    Attributes:
        task_id: as `start_export` returned it.
        state: of Earth Engine's operation.
        error: what went wrong; empty unless FAILED.
        destination_uris: where the files lie, once SUCCEEDED.
        eecu_seconds: compute used so far; NaN when not reported.
    """

    task_id: str
    state: State
    error: str
    destination_uris: tuple[str, ...]
    eecu_seconds: float

    @property
    def is_final(self) -> bool:
        """Whether it will not change any more."""
        return self.state in FINAL_STATES


def start_export(
    request: PixelRequest, bucket: str, prefix: str, file_format: FileFormat, patch_size_px: int | None = None
) -> str:
    """Starts Export.image.toCloudStorage and returns the task's id. Not bound by the limits of a pixel request.

    The same request to the same prefix within one process run may be started twice by two calls: the ledger keeps ids.

    Args:
        request: what to export; `prefix` + `.tif`, or `.tfrecord.gz` and `mixer.json`, is where it lies.
        bucket: name without gs://.
        prefix: path in the bucket, without extension.
        file_format: TFRECORD holds float32 only.
        patch_size_px: side of the patches of a TFRECORD; None = the whole grid is one patch.

    Raises:
        EarthEngineError: see `errors.Reason`.
    """
    raise NotImplementedError


def get_task(task_id: str) -> TaskState:
    """Where the task stands.

    Raises:
        EarthEngineError: not_found when there is no such task; others as in `errors.Reason`.
    """
    raise NotImplementedError


def cancel_task(task_id: str) -> None:
    """Asks for the task to be cancelled; one that is final stays as it is.

    Raises:
        EarthEngineError: as `get_task`.
    """
    raise NotImplementedError
