"""A loopback S3 server (moto's) on a free port, and the environment under which everything here finds it."""

import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from beam_jobs.contracts import object_store

BUCKET = "terrapair-tests"


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Starts the server in a thread with an empty bucket; yields the environment variables that lead to it."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "S3_ENDPOINT": f"http://{host}:{port}",
        # No question to the metadata service of a cloud machine.
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    object_store.complete_environment(variables)
    request = urllib.request.Request(f"http://{host}:{port}/{BUCKET}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    try:
        yield variables
    finally:
        server.stop()


def new_folder(name: str) -> str:
    """URI of a folder that no other test uses."""
    return f"s3://{BUCKET}/{name}-{uuid.uuid4().hex[:8]}"
