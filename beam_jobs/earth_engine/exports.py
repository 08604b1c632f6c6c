"""Batch exports: tasks that write pixels to a Google Cloud Storage bucket.

Input: `PixelRequest`, after `connection.connect`. Output: task ids and the states of
tasks.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from beam_jobs.contracts.bands import S1_NODATA, S2_NODATA
from beam_jobs.earth_engine.client import ee
from beam_jobs.earth_engine.connection import translated
from beam_jobs.earth_engine.images import request_image
from beam_jobs.earth_engine.requests import PixelRequest, pixel_grid

FileFormat = Literal["GEO_TIFF", "TFRECORD"]
State = Literal["PENDING", "RUNNING", "CANCELLING", "SUCCEEDED", "CANCELLED", "FAILED"]


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """State of an export task.

    Attributes:
        task_id: id from `start_export`: projects/<project>/operations/<id>.
        state: state of Earth Engine's operation.
        error: what went wrong; empty unless FAILED.
        destination_uris: folders in the bucket that hold the files, once SUCCEEDED;
            these are pages of the console, not gs:// URIs.
        eecu_seconds: compute used so far; NaN when not reported.
    """

    task_id: str
    state: State
    error: str
    destination_uris: tuple[str, ...]
    eecu_seconds: float


def start_export(
    request: PixelRequest,
    *,
    bucket: str,
    prefix: str,
    file_format: FileFormat,
    patch_size_px: int | None = None,
) -> str:
    """Start an export of an image to Cloud Storage and return the task's id.

    The limits of a pixel request do not apply. Earth Engine splits large GeoTIFFs and
    then adds -<row>-<column> of the first pixel to each name.

    Args:
        request: what to export.
        bucket: name without gs://.
        prefix: path in the bucket, without extension. The files are `prefix` + `.tif`,
            or `prefix` + `-00000.tfrecord.gz` and `-mixer.json`.
        file_format: TFRECORD holds float32 only, whatever the request's dtype.
        patch_size_px: side of the patches of a TFRECORD; None = the whole grid is one
            patch.

    Raises:
        EarthEngineError: see `RequestReason`.
    """
    options: dict[str, Any]
    if file_format == "TFRECORD":
        size = {"width": patch_size_px or request.width, "height": patch_size_px or request.height}
        options = {
            "fileFormat": "TF_RECORD_IMAGE",
            "tfRecordOptions": {"tileDimensions": size, "compress": True},
        }
    else:
        nodata = S1_NODATA if request.sensor == "s1" else S2_NODATA
        options = {"fileFormat": "GEO_TIFF", "geoTiffOptions": {"noData": {"floatValue": nodata}}}
    body = {
        "description": re.sub(r"[^\w.,:;-]", "_", prefix)[-100:],
        "fileExportOptions": {
            **options,
            "cloudStorageDestination": {"bucket": bucket, "filenamePrefix": prefix},
        },
        "maxPixels": {"value": str(request.height * request.width)},
        # ee.batch.Export would reproject and clip to a region, which would change the
        # pixels. So the grid is given here.
        "grid": pixel_grid(request.grid),
    }
    with translated(f"export of {request.image_id}"):
        operation = ee.data.exportImage(
            ee.data.newTaskId()[0], {"expression": request_image(request), **body}
        )
    return str(operation["name"])


def get_task(task_id: str) -> TaskState:
    """Return the state of a task.

    Raises:
        EarthEngineError: not_found when there is no such task; others as in
            `RequestReason`.
    """
    with translated(f"task {task_id}"):
        operation = ee.data.getOperation(task_id)
    metadata = operation.get("metadata", {})
    return TaskState(
        task_id=task_id,
        state=metadata.get("state", "PENDING"),
        error=" ".join(operation.get("error", {}).get("message", "").split()),
        destination_uris=tuple(metadata.get("destinationUris", ())),
        eecu_seconds=float(metadata.get("batchEecuUsageSeconds", math.nan)),
    )
