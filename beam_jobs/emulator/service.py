"""What the emulator answers: routes, faults, limits and the request log.

Input: `Request`, from many threads. Output: `Response`. It needs no sockets.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.emulator import algorithms, costs, discovery, rasters
from beam_jobs.emulator.archive import Archive, MaskedArchive
from beam_jobs.emulator.config import EmulatorConfig
from beam_jobs.emulator.elements import to_json
from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.expressions import evaluate, loaded_images
from beam_jobs.emulator.faults import Attempt, Fault, FaultsConfig, Traffic
from beam_jobs.emulator.images import Image, select
from beam_jobs.emulator.tasks import Tasks, write_export
from beam_jobs.scenes.grids import Grid

FAULTS_PATH = "/emulator/faults"
MAX_BYTES, MAX_SIDE_PX, MAX_BANDS = 50_331_648, 32_768, 1_024
_PROFILING_HEADER = "X-Earth-Engine-Computation-Profiling"
_PROFILE_HEADER = "X-Earth-Engine-Computation-Profile"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request.

    Attributes:
        method: HTTP method.
        path: path without the query.
        headers: HTTP headers.
        body: JSON of the body; empty for GET.
        host: host as the client named it.
    """

    method: str
    path: str
    headers: Message
    body: Mapping[str, Any]
    host: str


@dataclass(frozen=True, kw_only=True)
class Response:
    """One answer.

    Attributes:
        status: HTTP status.
        data: body.
        content_type: type of the body.
        headers: further HTTP headers.
        fault: what the server does to the answer while it sends it.
    """

    status: int
    data: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: Fault | None = None


@dataclass(frozen=True)
class _Route:
    """Which handler answers which requests.

    Attributes:
        method: HTTP method.
        pattern: regular expression of the path; the handler receives its groups.
        name: name in the request log.
        handler: makes the answer.
    """

    method: str
    pattern: str
    name: str
    handler: Callable[..., Response]


def _json(value: Any, status: int = 200) -> Response:
    return Response(status=status, data=json.dumps(value).encode())


class Service:
    """The emulator without its socket."""

    def __init__(
        self, archive: Archive, config: EmulatorConfig, buckets_dir: Path, log_path: Path
    ) -> None:
        self._archive = archive
        self._masked = MaskedArchive(images=archive.images, collections=archive.collections)
        self._config = config
        self._tasks = Tasks(pending_s=config.pending_s, running_s=config.running_s)
        self._buckets_dir = buckets_dir
        self._log_path = log_path
        self._lock = Lock()
        self.set_faults(config.faults)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._routes = (
            _Route("POST", r"(projects/[^/]+)/value:compute", "compute", self._compute_value),
            _Route(
                "POST",
                r"(projects/[^/]+)/image:computePixels",
                "computePixels",
                self._compute_pixels,
            ),
            _Route("POST", r"projects/[^/]+/assets/(.+):getPixels", "getPixels", self._get_pixels),
            _Route("POST", r"(projects/[^/]+)/image:export", "export", self._export),
            _Route(
                "GET",
                r"(projects/[^/]+)/operations",
                "listOperations",
                lambda _, name: _json(self._tasks.list(name)),
            ),
            _Route(
                "GET",
                r"(projects/[^/]+/operations/[^:]+)",
                "getOperation",
                lambda _, name: _json(self._tasks.get(name)),
            ),
            _Route(
                "POST",
                r"(projects/[^/]+/operations/[^:]+):cancel",
                "cancelOperation",
                lambda _, name: _json(self._tasks.cancel(name)),
            ),
        )

    @property
    def images(self) -> Mapping[str, Image]:
        """All images that are served, by id."""
        return self._archive.images

    def set_faults(self, faults: FaultsConfig) -> None:
        """Use these faults from now on; counts of requests begin anew."""
        with self._lock:
            self._faults, self._traffic = faults, Traffic()

    def close(self) -> None:
        """End the exports that still wait."""
        self._tasks.close()

    def handle(self, request: Request) -> Response:
        """Return the answer to any request."""
        try:
            if request.path == FAULTS_PATH:
                return self._control(request)
            self._check_credentials(request)
            if request.path == "/$discovery/rest":
                return _json(discovery.discovery_document(f"http://{request.host}/"))
            path = re.sub(r"^/v1(alpha|beta)?/", "", request.path)
            if request.method == "GET" and re.fullmatch(r"projects/[^/]+/algorithms", path):
                return _json(algorithms.algorithms_answer())
            for route in self._routes:
                match = re.fullmatch(route.pattern, path)
                if match and route.method == request.method:
                    answer = partial(route.handler, request, *match.groups())
                    return self._logged(request, route.name, answer)
            raise RequestError(404, f"The emulator has no {request.method} {request.path}.")
        except RequestError as error:
            return _json(error.body, error.status)

    def _control(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                self.set_faults(settings.from_dict(FaultsConfig, dict(request.body)))
            except ValueError as error:
                raise RequestError(400, str(error)) from error
        return _json(settings.to_dict(self._faults))

    def _check_credentials(self, request: Request) -> None:
        if self._faults.expired_token or not request.headers.get("Authorization", "").startswith(
            "Bearer "
        ):
            raise RequestError(
                401,
                "Request had invalid authentication credentials. "
                "Expected OAuth 2 access token or login cookie.",
            )

    def _logged(self, request: Request, name: str, answer: Callable[[], Response]) -> Response:
        """Answer a request with its fault, and write its line in the log."""
        faults, traffic = self._faults, self._traffic
        attempt = traffic.count(_key(request))
        fault = faults.passing_fault(attempt.key, attempt.index)
        try:
            _refuse(faults, fault, attempt)
            response = answer()
        except RequestError as error:
            response = _json(error.body, error.status)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            # A client's mistake, such as a missing field or an unknown CRS, must get an
            # answer instead of a broken connection.
            refused = RequestError(400, f"Invalid request: {type(error).__name__}: {error}")
            response = _json(refused.body, refused.status)
        if response.status == 200:
            response = replace(response, fault=fault)
        outcome = {"status": response.status, "fault": fault}
        self._write_log(request, name, attempt, outcome)
        if fault == "slow":
            time.sleep(faults.slow_s)
        return response

    def _write_log(
        self, request: Request, name: str, attempt: Attempt, outcome: Mapping[str, Any]
    ) -> None:
        grid = request.body.get("grid")
        line = {
            "time": time.time(),
            "method": name,
            "what": loaded_images(request.body.get("expression", {})) or [request.path],
            "grid": hashlib.sha256(json.dumps(grid, sort_keys=True).encode()).hexdigest()[:16]
            if grid
            else None,
            "key": attempt.key,
            "attempt": attempt.index,
            **outcome,
        }
        with self._lock, self._log_path.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _compute_value(self, request: Request, project: str) -> Response:
        return _json({"result": to_json(evaluate(request.body["expression"], self._archive))})

    def _compute_pixels(self, request: Request, project: str) -> Response:
        archive = self._masked if self._faults.is_masked(_key(request)) else self._archive
        return self._pixels(request, _image(evaluate(request.body["expression"], archive)))

    def _get_pixels(self, request: Request, image_id: str) -> Response:
        if image_id not in self._archive.images:
            raise RequestError(
                404,
                f"Image asset '{image_id}' not found "
                f"(does not exist or caller does not have access).",
            )
        return self._pixels(request, self._archive.image(image_id))

    def _pixels(self, request: Request, image: Image) -> Response:
        if request.body.get("bandIds"):
            image = select(image, request.body["bandIds"], None)
        grid = _grid(request.body)
        if max(grid.height, grid.width) > MAX_SIDE_PX:
            raise RequestError(
                400,
                f"Pixel grid dimensions ({grid.width}x{grid.height}) "
                f"must be less than or equal to {MAX_SIDE_PX}.",
            )
        if len(image.bands) > MAX_BANDS:
            raise RequestError(
                400,
                f"Number of bands ({len(image.bands)}) must be less than or equal to {MAX_BANDS}.",
            )
        # A pixel has at least one byte, so refuse what is too large before it is
        # computed.
        _check_size(grid.height * grid.width * len(image.bands))
        planes = image.planes(grid)
        _check_size(sum(plane.data.nbytes for plane in planes))
        headers = {}
        if _PROFILING_HEADER in request.headers:
            num_values = sum(plane.size for plane in planes)
            headers[_PROFILE_HEADER] = costs.profile_id(num_values, self._traffic.num_requests)
        if request.body.get("fileFormat") == "NPY":
            return Response(
                status=200,
                data=rasters.npy(planes, image.names),
                content_type="application/octet-stream",
                headers=headers,
            )
        if request.body.get("fileFormat") == "GEO_TIFF":
            data = rasters.geotiff(planes, image.names, grid)
            return Response(status=200, data=data, content_type="image/tiff", headers=headers)
        raise RequestError(
            400, f"The emulator writes GEO_TIFF and NPY, not {request.body.get('fileFormat')!r}."
        )

    def _export(self, request: Request, project: str) -> Response:
        body = request.body
        image, grid = _image(evaluate(body["expression"], self._archive)), _grid(body)
        fails = self._faults.export_fails(_key(request))

        def export() -> tuple[str, float]:
            if fails:
                raise RequestError(
                    400, "Export failed: internal error of the emulator, as its faults say."
                )
            options = body["fileExportOptions"]
            return write_export(
                image,
                grid,
                options=options,
                buckets_dir=self._buckets_dir,
                max_file_side_px=self._config.max_file_side_px,
            )

        return _json(self._tasks.start(project, body, export))


def _refuse(faults: FaultsConfig, fault: Fault | None, attempt: Attempt) -> None:
    """Raise RequestError if the faults refuse this request."""
    if 0 <= faults.quota_exhausted_after <= attempt.number:
        raise RequestError(
            429,
            "Your project has exceeded the compute quota of its noncommercial tier "
            "for this month (EECU-hours).",
        )
    period = faults.burst_every + faults.burst_length
    is_burst = faults.burst_every > 0 and attempt.number % period >= faults.burst_every
    is_too_fast = 0 < faults.max_requests_per_second < attempt.num_in_last_second
    if fault == "too_many_requests" or is_burst or is_too_fast:
        raise RequestError(
            429,
            "Too Many Requests: Request was rejected because the request rate or concurrency "
            "limit was exceeded.",
        )
    if fault == "server_error":
        raise RequestError(503, "The service is currently unavailable.")
    if faults.is_too_large(attempt.key):
        raise RequestError(
            400,
            f"Total request size (99999999 bytes) must be less than or equal to {MAX_BYTES} bytes.",
        )


def _key(request: Request) -> str:
    """Return the name of what is asked.

    It is made of path and body, without the ids that change from try to try.
    """
    body = {
        name: value
        for name, value in request.body.items()
        if name not in ("requestId", "workloadTag")
    }
    return hashlib.sha256(f"{request.path}{json.dumps(body, sort_keys=True)}".encode()).hexdigest()[
        :32
    ]


def _image(value: Any) -> Image:
    if not isinstance(value, Image):
        raise RequestError(400, f"The expression must be an Image, got {type(value).__name__}.")
    return value


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise RequestError(
            400,
            f"Total request size ({num_bytes} bytes) "
            f"must be less than or equal to {MAX_BYTES} bytes.",
        )


def _grid(body: Mapping[str, Any]) -> Grid:
    """Return the Grid of a PixelGrid.

    Source: https://developers.google.com/earth-engine/reference/rest/v1/PixelGrid.

    Raises:
        RequestError: 400; a part of the grid is missing.
    """
    try:
        grid, affine = body["grid"], body["grid"]["affineTransform"]
        names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
        a, b, c, d, e, f = (float(affine.get(name, 0.0)) for name in names)
        height, width = int(grid["dimensions"]["height"]), int(grid["dimensions"]["width"])
        return Grid(crs=grid["crsCode"], transform=(a, b, c, d, e, f), height=height, width=width)
    except KeyError as error:
        raise RequestError(
            400, f"The emulator needs a complete pixel grid; {error} is missing."
        ) from error
