"""The REST interface of a Flink cluster on loopback, as far as `beam_jobs.engines` asks.

Paths and fields are those of Flink 1.19, seen on a cluster.
Source: https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/
"""

import http.server
import json
import threading
from urllib.parse import urlsplit


class FlinkServer:
    """A server with some jobs.

    Attributes:
        version: of Flink.
        config: key -> value of the JobManager's configuration.
        jobs: id -> [name, state].
        obeys: whether a job ends when it is cancelled.
    """

    def __init__(self, version: str = "1.19.3", config: dict[str, str] | None = None) -> None:
        self.version = version
        self.config = config if config is not None else {"restart-strategy.type": "fixed-delay"}
        self.jobs: dict[str, list[str]] = {}
        self.obeys = True

    @property
    def port(self) -> int:
        """Port on 127.0.0.1."""
        return self._server.server_port

    def __enter__(self) -> "FlinkServer":
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, url: str):
        """Return the document of a request; None = there is nothing."""
        path, query = urlsplit(url).path, urlsplit(url).query
        if (method, path) == ("GET", "/config"):
            return {"flink-version": self.version}
        if (method, path) == ("GET", "/jobmanager/config"):
            return [{"key": key, "value": value} for key, value in self.config.items()]
        if (method, path) == ("GET", "/jobs/overview"):
            return {
                "jobs": [
                    {"jid": job_id, "name": name, "state": state}
                    for job_id, (name, state) in self.jobs.items()
                ]
            }
        if method == "PATCH" and path.startswith("/jobs/") and query == "mode=cancel":
            if self.obeys:
                self.jobs[path.removeprefix("/jobs/")][1] = "CANCELED"
            return {}
        return None

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = server.answer(self.command, self.path)
                data = json.dumps(found).encode()
                self.send_response(404 if found is None else 202 if not found else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PATCH = do_GET  # noqa: N815 - the name is that of the base class

            def log_message(self, *_) -> None:
                pass

        return Handler
