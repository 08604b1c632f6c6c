"""Export tasks, which wait, run and end as Earth Engine's do.

Input: the JSON of an ExportImageRequest. Output: operations as JSON; GeoTIFFs, or
TFRecords with a mixer, under `<buckets_dir>/<bucket>/<prefix>`.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from threading import Event, Lock
from typing import Any, Literal

import numpy as np

from beam_jobs.emulator import costs, rasters
from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.images import Image
from beam_jobs.scenes.grids import Grid

State = Literal["PENDING", "RUNNING", "SUCCEEDED", "CANCELLED", "FAILED"]
FINAL_STATES: frozenset[State] = frozenset({"SUCCEEDED", "CANCELLED", "FAILED"})


@dataclass
class _Task:
    """One export and its state.

    Attributes:
        name: name of its operation.
        description: text of the client.
        export: writes the files; returns the destination and the EECU seconds used.
        created_at: seconds since 1970.
        state: state of the task.
        updated_at: seconds since 1970; 0 = not since it was made.
        destination: URI of the folder of the files.
        eecu_seconds: compute used.
        error: what went wrong; empty unless it failed.
    """

    name: str
    description: str
    export: Callable[[], tuple[str, float]]
    created_at: float
    state: State = "PENDING"
    updated_at: float = 0.0
    destination: str = ""
    eecu_seconds: float = 0.0
    error: str = ""

    def move_to(self, state: State) -> bool:
        """Change the state unless it is final; return whether it changed."""
        if self.state in FINAL_STATES:
            return False
        self.state, self.updated_at = state, time.time()
        return True


class Tasks:
    """All exports of a server; two run at a time, as is usual in Earth Engine.

    A task waits `pending_s` seconds, then runs at least `running_s` seconds.
    """

    def __init__(self, pending_s: float, running_s: float) -> None:
        self._pending_s, self._running_s = pending_s, running_s
        self._tasks: dict[str, _Task] = {}
        self._names: dict[str, str] = {}
        self._lock = Lock()
        self._workers = ThreadPoolExecutor(max_workers=2)
        self._closed = Event()

    def start(
        self, project: str, body: Mapping[str, Any], export: Callable[[], tuple[str, float]]
    ) -> dict[str, Any]:
        """Add a task and return its operation.

        If the requestId came before, the operation of the earlier task is returned.

        Args:
            project: project, as projects/p.
            body: ExportImageRequest.
            export: writes the files; returns the destination and the EECU seconds used.
        """
        with self._lock:
            request_id = body.get("requestId") or uuid.uuid4().hex
            if request_id not in self._names:
                name = f"{project}/operations/{uuid.uuid4().hex[:24].upper()}"
                task = _Task(
                    name=name,
                    description=body.get("description", ""),
                    export=export,
                    created_at=time.time(),
                )
                self._names[request_id], self._tasks[name] = name, task
                self._workers.submit(self._run, task)
            return _operation(self._tasks[self._names[request_id]])

    def get(self, name: str) -> dict[str, Any]:
        """Return the operation of that name.

        Raises:
            RequestError: 404, there is none.
        """
        with self._lock:
            return _operation(self._task(name))

    def list(self, project: str) -> dict[str, Any]:
        """Return all operations of a project, the newest first."""
        with self._lock:
            found = [task for name, task in self._tasks.items() if name.startswith(f"{project}/")]
            return {"operations": [_operation(task) for task in reversed(found)]}

    def cancel(self, name: str) -> dict[str, Any]:
        """Cancel a task that is not final."""
        with self._lock:
            self._task(name).move_to("CANCELLED")
            return {}

    def close(self) -> None:
        """End the workers; tasks that still wait never run."""
        self._closed.set()
        self._workers.shutdown(cancel_futures=True)

    def _task(self, name: str) -> _Task:
        if name not in self._tasks:
            raise RequestError(404, f"Operation '{name}' not found.")
        return self._tasks[name]

    def _run(self, task: _Task) -> None:
        if self._closed.wait(self._pending_s):
            return
        with self._lock:
            if not task.move_to("RUNNING"):
                return
        started_at = time.monotonic()
        task.error = "Internal error of the emulator; see its log."
        try:
            task.destination, task.eecu_seconds = task.export()
            task.error = ""
        except RequestError as error:
            task.error = str(error)
        finally:
            self._closed.wait(max(0.0, self._running_s - (time.monotonic() - started_at)))
            with self._lock:
                task.move_to("FAILED" if task.error else "SUCCEEDED")


def _operation(task: _Task) -> dict[str, Any]:
    """Return the task as JSON.

    Source:
    https://developers.google.com/earth-engine/reference/rest/v1/projects.operations#Operation
    """
    metadata: dict[str, Any] = {
        "@type": "type.googleapis.com/google.earthengine.v1.OperationMetadata",
        "state": task.state,
        "description": task.description,
        "type": "EXPORT_IMAGE",
        "attempt": 1,
        "progress": 1 if task.state == "SUCCEEDED" else 0,
        "createTime": _timestamp(task.created_at),
        "updateTime": _timestamp(task.updated_at or task.created_at),
    }
    operation: dict[str, Any] = {"name": task.name, "metadata": metadata}
    if task.state in FINAL_STATES:
        operation["done"] = True
    if task.state == "SUCCEEDED":
        metadata |= {
            "destinationUris": [task.destination],
            "batchEecuUsageSeconds": task.eecu_seconds,
        }
        operation["response"] = {
            "@type": "type.googleapis.com/google.earthengine.v1.ExportImageResponse"
        }
    if task.state == "FAILED":
        operation["error"] = {"code": 3, "message": task.error}
    return operation


def write_export(
    image: Image,
    grid: Grid,
    *,
    options: Mapping[str, Any],
    buckets_dir: Path,
    max_file_side_px: int,
) -> tuple[str, float]:
    """Write the files of an export.

    Args:
        image: image that is exported.
        grid: pixels to write.
        options: ImageFileExportOptions.
        buckets_dir: holds a folder for each bucket.
        max_file_side_px: a GeoTIFF larger than this is split.

    Returns:
        Destination URI, and the price in EECU seconds.

    Raises:
        RequestError: a destination or a format that the emulator does not know.
    """
    destination = options.get("cloudStorageDestination")
    if not destination:
        raise RequestError(400, "The emulator exports to Cloud Storage only.")
    bucket, prefix = destination["bucket"], destination["filenamePrefix"]
    stem = buckets_dir / bucket / prefix
    if not stem.resolve().is_relative_to(buckets_dir.resolve()):
        raise RequestError(400, f"The prefix {prefix!r} leaves the bucket.")
    stem.parent.mkdir(parents=True, exist_ok=True)
    planes = image.planes(grid)
    if options["fileFormat"] == "GEO_TIFF":
        export = _Export(stem, planes, image.names, grid, options.get("geoTiffOptions", {}))
        _write_geotiffs(export, max_file_side_px)
    elif options["fileFormat"] == "TF_RECORD_IMAGE":
        _write_tfrecord(
            _Export(stem, planes, image.names, grid, options.get("tfRecordOptions", {}))
        )
    else:
        raise RequestError(400, f"The emulator does not export {options['fileFormat']}.")
    uri = (
        f"https://console.developers.google.com/storage/browser/{bucket}/{os.path.dirname(prefix)}"
    )
    return uri, costs.eecu_seconds(len(planes) * grid.height * grid.width)


@dataclass(frozen=True)
class _Export:
    """What one export writes, and where.

    Attributes:
        stem: path of the files, without ending.
        planes: pixels of each band.
        names: name of each band.
        grid: grid of the planes.
        options: options of the file format.
    """

    stem: Path
    planes: Sequence[rasters.Plane]
    names: Sequence[str]
    grid: Grid
    options: Mapping[str, Any]


def _write_geotiffs(export: _Export, side_px: int) -> None:
    """Write one GeoTIFF, or several where the grid is larger than `side_px`."""
    stem, planes, grid = export.stem, export.planes, export.grid
    nodata = export.options.get("noData", {}).get("floatValue")
    is_whole = grid.height <= side_px and grid.width <= side_px
    for row in range(0, grid.height, side_px):
        for col in range(0, grid.width, side_px):
            part = grid.window(
                row, col, min(side_px, grid.height - row), min(side_px, grid.width - col)
            )
            cut = [plane[row : row + part.height, col : col + part.width] for plane in planes]
            # Names of split files hold the first row and column, ten digits each.
            suffix = ".tif" if is_whole else f"-{row:010d}-{col:010d}.tif"
            _write(
                stem.with_name(stem.name + suffix), rasters.geotiff(cut, export.names, part, nodata)
            )


def _write_tfrecord(export: _Export) -> None:
    """Write patches row by row, one float list a band, and then the mixer.

    Edges that do not fill a patch are left out. Source:
    https://developers.google.com/earth-engine/guides/tfrecord
    """
    # Imported here, because only this format needs TensorFlow, which takes seconds.
    import tensorflow as tf

    stem, planes, grid, options = export.stem, export.planes, export.grid, export.options
    if "marginDimensions" in options:
        raise RequestError(400, "The emulator does not export TFRecords with a kernel margin.")
    size = options.get("tileDimensions", {"width": 256, "height": 256})
    width, height = int(size["width"]), int(size["height"])
    num_rows, num_cols = grid.height // height, grid.width // width
    path = stem.with_name(
        f"{stem.name}-00000.tfrecord" + (".gz" if options.get("compress") else "")
    )
    partial = path.with_name(f".{path.name}.partial")
    with tf.io.TFRecordWriter(str(partial), "GZIP" if options.get("compress") else "") as writer:
        for row in range(0, num_rows * height, height):
            for col in range(0, num_cols * width, width):
                cut = [
                    plane[row : row + height, col : col + width].filled(0).astype(np.float32)
                    for plane in planes
                ]
                feature = {
                    name: tf.train.Feature(float_list=tf.train.FloatList(value=pixels.ravel()))
                    for name, pixels in zip(export.names, cut, strict=True)
                }
                writer.write(
                    tf.train.Example(
                        features=tf.train.Features(feature=feature)
                    ).SerializeToString()
                )
    os.replace(partial, path)
    mixer = {
        "projection": {"crs": grid.crs, "affine": {"doubleMatrix": list(grid.transform)}},
        "patchDimensions": [width, height],
        "patchesPerRow": num_cols,
        "totalPatches": num_rows * num_cols,
    }
    _write(stem.with_name(f"{stem.name}-mixer.json"), json.dumps(mixer).encode())


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
