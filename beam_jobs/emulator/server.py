"""The emulator's HTTP server on the loopback address, with a thread a connection.

Input: a folder of simulated scenes. Output: a URL for the real Earth Engine client.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from beam_jobs.emulator.archive import open_archive
from beam_jobs.emulator.config import EmulatorConfig
from beam_jobs.emulator.errors import RequestError
from beam_jobs.emulator.service import Request, Response, Service

HOST = "127.0.0.1"
PROJECT = "terrapair-emulator"
TOKEN = "emulator"
BUCKETS_DIR_NAME = "buckets"
LOG_NAME = "requests.ndjson"


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers requests.

    Attributes:
        url: URL of the server.
        log_path: NDJSON with a line a request: time, method, what, grid, key, attempt,
            status, fault.
        buckets_dir: stands for Cloud Storage; holds a folder for each bucket.
        service: changes faults from the same process.
    """

    url: str
    log_path: Path
    buckets_dir: Path
    service: Service

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which the jobs use this server."""
        return {
            "EARTHENGINE_PROJECT": PROJECT,
            "TERRAPAIR_EE_URL": self.url,
            "TERRAPAIR_EE_TOKEN": TOKEN,
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return the request log so far."""
        if not self.log_path.exists():
            return []
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]


@contextmanager
def running(
    scenes_dir: str | Path,
    work_dir: str | Path,
    config: EmulatorConfig | None = None,
    port: int = 0,
    log_path: str | Path | None = None,
) -> Iterator[Running]:
    """Run a server over simulated scenes until the block ends.

    Args:
        scenes_dir: output folder of the simulator.
        work_dir: folder for the buckets, and for the request log unless `log_path` is
            given.
        config: faults, and times and sizes of exports.
        port: 0 = any free one.
        log_path: file that the request log is appended to.

    Raises:
        DataError: no catalog in `scenes_dir`.
        OSError: the port is taken.
    """
    log_path = Path(log_path) if log_path else Path(work_dir) / LOG_NAME
    buckets_dir = Path(work_dir) / BUCKETS_DIR_NAME
    archive = open_archive(scenes_dir)
    service = Service(archive, config or EmulatorConfig(), buckets_dir, log_path)
    server = ThreadingHTTPServer((HOST, port), _handler(service))
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        url = f"http://{HOST}:{server.server_address[1]}"
        yield Running(url=url, log_path=log_path, buckets_dir=buckets_dir, service=service)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        service.close()


def stop_signal() -> threading.Event:
    """Return an event that Ctrl-C or SIGTERM sets from now on.

    The signals no longer end the process at once.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Reads a request, asks the service and sends the answer."""

        protocol_version = "HTTP/1.1"
        # Send head and body in one packet. Two packets would wait for each other's
        # acknowledgement.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                self._answer(json.loads(data or b"{}"))
            except json.JSONDecodeError as error:
                refused = RequestError(400, f"Invalid JSON payload received: {error}")
                self._send(Response(status=400, data=json.dumps(refused.body).encode()))

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing: the request log holds more."""

        def _answer(self, body: dict[str, Any]) -> None:
            path, _, _ = self.path.partition("?")
            host = self.headers.get("Host", HOST)
            request = Request(
                method=self.command, path=path, headers=self.headers, body=body, host=host
            )
            response = service.handle(request)
            with suppress(ConnectionError):
                self._send(response)

        def _send(self, response: Response) -> None:
            half = response.data[: len(response.data) // 2]
            data = half if response.fault == "truncated" else response.data
            self.send_response(response.status)
            self.send_header("Content-Type", response.content_type)
            self.send_header("Content-Length", str(len(data)))
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(half if response.fault == "dropped" else data)
            self.close_connection |= response.fault == "dropped"

        def finish(self) -> None:
            # A client that did not wait for a slow answer has closed the connection.
            with suppress(ConnectionError):
                super().finish()

    return Handler
