"""Object stores as file systems of TensorFlow: how s3:// is opened, where its settings come from, how a process ends.

Called by whatever opens a path that may be a URI, and by the `__main__` modules. gs://
needs nothing: TensorFlow knows it. docs/adr/0007 says why tensorflow-io is here and
Beam's own file systems in the jobs.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from typing import NoReturn
from urllib.parse import urlsplit

SCHEMES = ("s3", "gs")
"""Stores that TensorFlow, Beam and GDAL can all open."""
_FILESYSTEM_MODULE = "tensorflow_io"
_FALSE = ("0", "false", "no")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a URI of an object store, such as s3://bucket/key, rather than a path of this machine."""
    return os.fspath(path).partition("://")[0] in SCHEMES and "://" in os.fspath(path)


def load_filesystem(path: str | os.PathLike[str]) -> None:
    """Teaches TensorFlow s3://, if `path` is there; a process that only sees local paths never pays the import."""
    if os.fspath(path).startswith("s3://"):
        import tensorflow_io  # noqa: F401 - the import registers the file system


def beam_plugins(path: str | os.PathLike[str]) -> list[str]:
    """Beam arguments with which worker processes of TFX's Beam jobs open models below `path`."""
    return [f"--beam_plugin={_FILESYSTEM_MODULE}"] if os.fspath(path).startswith("s3://") else []


def complete_environment(environment: MutableMapping[str, str]) -> None:
    """Fills in what tensorflow-io, boto3 (Beam) and GDAL (rasters) each call the same settings; what is set stays.

    One set is enough: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
    S3_ENDPOINT, and S3_USE_HTTPS=0 where the endpoint is plain HTTP and does not say so
    by http://; AWS_CA_BUNDLE for a private certificate authority. Without an endpoint
    nothing but the region and the certificates is filled in, and all three talk to
    Amazon.

    Source: https://github.com/tensorflow/io (s3_filesystem.cc); boto3 guide,
    "Configuration"; GDAL manual, /vsis3/.
    """
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region:
        environment.setdefault("AWS_REGION", region)
        environment.setdefault("AWS_DEFAULT_REGION", region)
    bundle = environment.get("AWS_CA_BUNDLE")
    if bundle:
        environment.setdefault("S3_CA_FILE", bundle)
        environment.setdefault("CURL_CA_BUNDLE", bundle)
    names = ("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = next((environment[name] for name in names if environment.get(name)), None)
    if endpoint is None:
        return
    scheme, separator, host = endpoint.rpartition("://")
    if not separator:
        scheme = "http" if environment.get("S3_USE_HTTPS", "1").lower() in _FALSE else "https"
    host = urlsplit(f"{scheme}://{host}").netloc
    environment.setdefault("S3_ENDPOINT", f"{scheme}://{host}")
    environment.setdefault("S3_USE_HTTPS", "1" if scheme == "https" else "0")
    environment.setdefault("AWS_ENDPOINT_URL_S3", f"{scheme}://{host}")
    environment.setdefault("AWS_S3_ENDPOINT", host)
    environment.setdefault("AWS_HTTPS", "YES" if scheme == "https" else "NO")
    # Stores outside Amazon seldom have a DNS name per bucket; the other two choose the
    # path by themselves.
    environment.setdefault("AWS_VIRTUAL_HOSTING", "FALSE")


def run_to_exit(entry_point: Callable[[], int]) -> NoReturn:
    """Runs an entry point and ends the process with the code it returns or leaves with, s3:// or not.

    tensorflow-io 0.37 aborts at interpreter exit ("pure virtual method called", code
    134) once its S3 file system was used, though all work is done: such a process
    leaves by os._exit instead, after every other exit hook has run.
    """
    codes: list[int] = []
    # Hooks run in reverse order: registered before the libraries are imported, this one
    # comes after all of theirs.
    atexit.register(_leave, codes)
    with _recorded(codes):
        codes.append(entry_point())
    sys.exit(codes[-1])


@contextlib.contextmanager
def _recorded(codes: list[int]) -> Iterator[None]:
    """Keeps the code of a SystemExit, which an exit hook cannot see; any other exception ends in 1, as Python's own do."""
    try:
        yield
    except SystemExit as left:
        codes.append(left.code if isinstance(left.code, int) else int(left.code is not None))
        raise


def _leave(codes: list[int]) -> None:
    if _FILESYSTEM_MODULE not in sys.modules:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # A reader that has gone away is no reason to abort after all.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(codes[-1] if codes else 1)
