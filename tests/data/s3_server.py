"""Run a loopback S3 server on a free port, and give its environment variables.

The server is that of moto.
"""

import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

BUCKET = "terrapair-tests"


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


def _serve() -> None:
    import logging
    import threading

    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # Of S3 alone: moto's server of everything looks for the service of each request.
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
