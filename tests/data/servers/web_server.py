"""A web server in a process of its own, which writes down what it is asked for.

GDAL holds Python's lock while it waits for some answers, so a thread would not do.
"""

import contextlib
import http.server
import subprocess
import sys
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serve the working directory, and log each request before the answer."""

    def parse_request(self):
        found = super().parse_request()
        with Path(sys.argv[2]).open("a") as log:
            log.write(f"{self.path}\n")
        return found

    def log_message(self, *_):
        pass


class WebServer:
    """A running server: its `url`, and the paths that were asked for."""

    def __init__(self, url, log):
        self.url, self._log = url, log

    def requests(self):
        return self._log.read_text().split() if self._log.exists() else []


@contextlib.contextmanager
def running(folder, log):
    """Serve `folder` on 127.0.0.1 at a free port."""
    command = [sys.executable, "-S", __file__, str(folder), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield WebServer(f"http://127.0.0.1:{process.stdout.readline().strip()}", log)
        finally:
            process.kill()


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        lambda *arguments: Handler(*arguments, directory=sys.argv[1]),
    )
    print(server.server_port, flush=True)
    server.serve_forever()
