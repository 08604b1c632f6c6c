"""Object stores as file systems of TensorFlow.

Here is how s3:// is opened, where its settings come from and how a process that used it
ends. gs:// needs none of this: TensorFlow knows it. docs/adr/0007 says why TensorFlow
uses tensorflow-io here while the Beam jobs use Beam's own file systems.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import importlib
import logging
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import NoReturn
from urllib.parse import urlsplit

from beam_jobs.contracts.errors import ExitCode, TerrapairError

SCHEMES = ("s3", "gs")
"""Schemes of the stores that TensorFlow, Beam and GDAL can all open."""
_FILESYSTEM_MODULE = "tensorflow_io"
_FALSE = ("0", "false", "no")


ANSWER_SECONDS = 10.0
"""How long a store may take for its first answer. Slow ones need less than a second."""
_NUM_ATTEMPTS = 2
_PAUSE_SECONDS = 1.0
_TIMEOUTS = {
    # tensorflow-io waits 5 and 10 minutes by default, and tries ten times.
    "S3_CONNECT_TIMEOUT_MSEC": "10000",
    "S3_REQUEST_TIMEOUT_MSEC": "60000",
    # GDAL waits without an end. A long download is fine, a silent one is not.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
}
"""Bounds for a store that is lost in the middle of the work.

Source: tensorflow-io, s3_filesystem.cc; GDAL manual, "Networking options".
"""
_reached: set[str] = set()
"""Endpoints that answered this process."""


class UnreachableStoreError(TerrapairError, RuntimeError):
    """The object store cannot be reached, or does not answer; one line."""


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
        UnreachableStoreError: see `check_reachable`.
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
    check_reachable(path)


def check_reachable(path: str | os.PathLike[str]) -> None:
    """Ask the store of an s3:// path for any answer, once in a process.

    The clients cannot be asked: TensorFlow's says of a store that it cannot reach that
    the file does not exist, and a whole data set would seem to be empty.

    Args:
        path: of an object; other paths, and "s3://" alone, pass.

    Raises:
        UnreachableStoreError: there is no connection, or no answer within
            `ANSWER_SECONDS`, twice.
    """
    text = os.fspath(path)
    if not text.startswith("s3://") or text == "s3://":
        return
    endpoint = _endpoint(os.environ)
    if endpoint in _reached:
        return
    why = ""
    for attempt in range(_NUM_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        why = _why_silent(endpoint)
        if not why:
            _reached.add(endpoint)
            return
    raise UnreachableStoreError(
        f"{text}: the object store at {endpoint} {why}: check that it runs, the network and "
        "S3_ENDPOINT, then run the same command again"
    )


def _endpoint(environment: Mapping[str, str]) -> str:
    """Return the URL of the store that the environment names, else Amazon's."""
    completed = dict(environment)
    complete_environment(completed)
    region = completed.get("AWS_REGION") or "us-east-1"
    return completed.get("AWS_ENDPOINT_URL_S3") or f"https://s3.{region}.amazonaws.com"


def _why_silent(endpoint: str) -> str:
    """Return why a server gave no answer, or "" for any answer, be it a refusal."""
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError:
        # It wants a signature, which it gets from the clients.
        return ""
    except TimeoutError:
        return f"did not answer within {ANSWER_SECONDS:.0f} s"
    except urllib.error.URLError as error:
        # A certificate that this client does not know may be known to the others.
        if isinstance(error.reason, ssl.SSLError):
            return ""
        if isinstance(error.reason, TimeoutError):
            return f"could not be reached within {ANSWER_SECONDS:.0f} s"
        return f"cannot be reached ({getattr(error.reason, 'strerror', None) or error.reason})"
    except (OSError, http.client.HTTPException) as error:
        return f"broke the connection ({error})"
    except ValueError as error:
        return f"has no address that can be opened ({error})"
    return ""


def abort_uploads(folder: str | os.PathLike[str]) -> int:
    """Abort the uploads below a folder of s3:// that were never completed.

    A large object is uploaded in parts. The parts of a killed process are in no list of
    objects, and are paid for until the upload is aborted. On gs://, an upload that is
    not completed ends by itself within a week.

    Args:
        folder: no other process may write there. A folder that is not on s3:// has no
            such uploads.

    Returns:
        Number of uploads that were aborted. It is 0 if this user may not list uploads;
        the log then says so.

    Source: Amazon S3 user guide, "Uploading and copying objects using multipart
    upload"; Cloud Storage, "Resumable uploads".
    """
    text = os.fspath(folder)
    if not text.startswith("s3://"):
        return 0
    # Only now: the import takes a third of a second.
    import boto3

    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/"
    )
    count = 0
    try:
        for upload in [one for page in pages for one in page.get("Uploads", ())]:
            client.abort_multipart_upload(
                Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
            count += 1
    except client.exceptions.ClientError as error:
        logging.warning(
            "%s: what killed uploads left cannot be removed (%s): give this user the rights "
            "s3:ListBucketMultipartUploads and s3:AbortMultipartUpload, or the bucket a rule that "
            "aborts incomplete uploads",
            text,
            error.response.get("Error", {}).get("Code"),
        )
    return count


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
    certificates are copied, and all three libraries talk to Amazon. The time that they
    wait for a lost store is bounded.

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
    for name, value in _TIMEOUTS.items():
        environment.setdefault(name, value)
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
