"""Run a loopback S3 server on a free port, and give its environment variables.

The server is that of moto.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BUCKET = "terrapair-tests"
_STATES = "/-states/"
"""Begins the path of a request for what `states` returns."""


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Start the server with an empty bucket and yield its environment variables.

    The server runs in a process of its own: TensorFlow reads some files while it holds
    Python's lock, and a server in a thread of the same process could never answer.
    """
    command = [sys.executable, "-W", "ignore", __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield _environment(process.stdout.readline().strip())
        finally:
            # The server ends when its input closes, also if this process is killed.
            process.stdin.close()


def _environment(address: str) -> dict[str, str]:
    # Imported here, because the server runs this file without the project on its path.
    from beam_jobs.contracts import object_store

    variables = {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "S3_ENDPOINT": f"http://{address}",
        # Do not ask the metadata service of a cloud machine.
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    object_store.complete_environment(variables)
    request = urllib.request.Request(f"http://{address}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return variables


def new_folder(name: str) -> str:
    """Return the URI of a folder that no other test uses."""
    return f"s3://{BUCKET}/{name}-{uuid.uuid4().hex[:8]}"


def states(folder: str | os.PathLike[str]) -> list[dict[str, bytes]]:
    """Return what was in a folder after each request that changed it, the oldest first.

    A state is path below the folder -> content. The first call begins the watch, and
    returns nothing.
    """
    path = os.fspath(folder).removeprefix(f"s3://{BUCKET}/")
    address = f"{os.environ['AWS_ENDPOINT_URL_S3']}{_STATES}{path}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        seen = json.load(answer)
    return [{name: base64.b64decode(content) for name, content in state.items()} for state in seen]


def _watched(application: Callable) -> Callable:
    """Return a WSGI application that keeps the states of the folders it was asked for."""
    seen: dict[str, list[dict[str, str]]] = {}

    def answer(environ: dict, start_response: Callable) -> list[bytes]:
        folder = environ["PATH_INFO"].removeprefix(_STATES)
        if folder != environ["PATH_INFO"]:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(seen.setdefault(folder, [])).encode()]
        body = list(application(environ, start_response))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            for folder, known in seen.items():
                state = _content(f"{folder}/")
                if known[-1:] != [state]:
                    known.append(state)
        return body

    return answer


def _content(prefix: str) -> dict[str, str]:
    """Return key without its prefix -> content in base64, of the server's objects."""
    from moto.s3.models import s3_backends

    (account,) = s3_backends.values()
    return {
        key.removeprefix(prefix): base64.b64encode(found.value).decode()
        for key, found in account["aws"].buckets[BUCKET].keys.items()
        if key.startswith(prefix)
    }


def _serve() -> None:
    import logging
    import threading

    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        # Clients keep their connections, as with a real store.
        protocol_version = "HTTP/1.1"

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # moto's server of all services would first find out which one a request means.
    application = _watched(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
