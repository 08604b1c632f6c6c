"""Object stores as file systems of TensorFlow.

Here is how s3:// is opened, where its settings come from and how a process that used it
ends. gs:// needs none of this: TensorFlow knows it. docs/adr/0007 says why TensorFlow
uses tensorflow-io here while the Beam jobs use Beam's own file systems.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from typing import NoReturn
from urllib.parse import urlsplit

from beam_jobs.contracts.errors import ExitCode, TerrapairError

SCHEMES = ("s3", "gs")
"""Schemes of the stores that TensorFlow, Beam and GDAL can all open."""
_FILESYSTEM_MODULE = "tensorflow_io"
_FALSE = ("0", "false", "no")


class MissingFilesystemError(TerrapairError, RuntimeError):
    """TensorFlow cannot open s3:// here; the message says what to install."""

    exit_code = ExitCode.USAGE


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a URI of an object store, such as s3://bucket/key."""
    return os.fspath(path).partition("://")[0] in SCHEMES and "://" in os.fspath(path)


def load_filesystem(path: str | os.PathLike[str]) -> None:
    """Make TensorFlow able to open `path`.

    Only s3:// needs something: the import of tensorflow-io registers it. A process that
    opens only local paths does not import it.

    Raises:
        MissingFilesystemError: tensorflow-io is not installed, or does not load.
    """
    if not os.fspath(path).startswith("s3://"):
        return
    try:
        importlib.import_module(_FILESYSTEM_MODULE)
    except ImportError as error:
        raise MissingFilesystemError(
            f"{path}: TensorFlow opens s3:// by tensorflow-io, which is not installed: "
            "pip install tensorflow-io==0.37.1 (it needs TensorFlow 2.16)"
        ) from error
    import tensorflow as tf

    # With a TensorFlow that it was not built for, tensorflow-io warns and registers
    # nothing. The error would then come later and name no cause.
    if "s3" not in tf.io.gfile.get_registered_schemes():
        raise MissingFilesystemError(
            f"{path}: TensorFlow opens s3:// by tensorflow-io, which does not load under "
            f"TensorFlow {tf.__version__}: pip install tensorflow==2.16.2 tensorflow-io==0.37.1"
        )


def beam_plugins(path: str | os.PathLike[str]) -> list[str]:
    """Return the arguments with which workers of TFX's Beam jobs can open `path`."""
    return [f"--beam_plugin={_FILESYSTEM_MODULE}"] if os.fspath(path).startswith("s3://") else []


def complete_environment(environment: MutableMapping[str, str]) -> None:
    """Copy the settings of a store to the names that each library reads.

    tensorflow-io, boto3 (Beam) and GDAL (rasters) have different names for the same
    settings. A variable that is already set is not changed. These are enough:
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, S3_ENDPOINT; S3_USE_HTTPS=0
    for an endpoint that is plain HTTP and does not begin with http://; AWS_CA_BUNDLE
    for a private certificate authority. Without an endpoint only region and
    certificates are copied, and all three libraries talk to Amazon.

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
    # For GDAL. Stores outside Amazon seldom have a DNS name for each bucket; the other
    # two libraries then put the bucket into the path by themselves.
    environment.setdefault("AWS_VIRTUAL_HOSTING", "FALSE")


def run_to_exit(entry_point: Callable[[], int]) -> NoReturn:
    """Run an entry point and end the process with its exit code.

    A process that used the S3 file system of tensorflow-io 0.37 aborts at interpreter
    exit ("pure virtual method called", code 134), although all work is done. Such a
    process ends by os._exit instead, after every other exit hook has run.
    """
    codes: list[int] = []
    # Exit hooks run in reverse order. This one is registered before the libraries are
    # imported, so it runs after theirs.
    atexit.register(_leave, codes)
    with _recorded(codes):
        codes.append(entry_point())
    sys.exit(codes[-1])


@contextlib.contextmanager
def _recorded(codes: list[int]) -> Iterator[None]:
    """Append the code of a SystemExit to `codes`, since an exit hook cannot see it."""
    try:
        yield
    except SystemExit as left:
        codes.append(left.code if isinstance(left.code, int) else int(left.code is not None))
        raise


def _leave(codes: list[int]) -> None:
    """End the process at once if tensorflow-io was imported; 1 after an exception."""
    if _FILESYSTEM_MODULE not in sys.modules:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        # The reader of a pipe may be gone; that must not change the exit code.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(codes[-1] if codes else 1)
