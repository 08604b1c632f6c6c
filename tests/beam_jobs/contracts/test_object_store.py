"""Settings of object stores, and how a process that touched one ends."""

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from beam_jobs.contracts import layout, locations, object_store
from beam_jobs.storage import files
from beam_jobs.terminal.failures import failure_of
from tests.data.runs.repository import REPOSITORY


def completed(**given: str) -> dict[str, str]:
    object_store.complete_environment(given)
    return given


@pytest.mark.parametrize(
    ("given", "url", "host", "https"),
    [
        (
            {"S3_ENDPOINT": "http://127.0.0.1:9000"},
            "http://127.0.0.1:9000",
            "127.0.0.1:9000",
            False,
        ),
        (
            {"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"},
            "http://minio:9000",
            "minio:9000",
            False,
        ),
        ({"S3_ENDPOINT": "minio:9000"}, "https://minio:9000", "minio:9000", True),
        (
            {"AWS_ENDPOINT_URL": "https://store.example/"},
            "https://store.example",
            "store.example",
            True,
        ),
    ],
)
def test_one_endpoint_reaches_tensorflow_boto3_and_gdal(given, url, host, https):
    found = completed(**given)
    assert found["S3_ENDPOINT"] == given.get("S3_ENDPOINT", url)
    assert found["S3_USE_HTTPS"] == ("1" if https else "0")
    assert found["AWS_ENDPOINT_URL_S3"] == url
    assert (found["AWS_S3_ENDPOINT"], found["AWS_HTTPS"]) == (host, "YES" if https else "NO")
    assert found["AWS_VIRTUAL_HOSTING"] == "FALSE"


def test_without_an_endpoint_only_the_region_travels_and_what_is_set_stays():
    bounds = object_store._TIMEOUTS
    assert completed(AWS_REGION="eu-west-1") == bounds | {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    assert completed(AWS_REGION="a", AWS_DEFAULT_REGION="b") == bounds | {
        "AWS_REGION": "a",
        "AWS_DEFAULT_REGION": "b",
    }
    assert completed(S3_ENDPOINT="http://a:1", AWS_S3_ENDPOINT="b:2")["AWS_S3_ENDPOINT"] == "b:2"
    assert completed() == bounds
    assert completed(GDAL_HTTP_CONNECTTIMEOUT="3")["GDAL_HTTP_CONNECTTIMEOUT"] == "3"


def test_a_windows_drive_or_a_web_address_is_no_object_store():
    assert [
        object_store.is_remote(path)
        for path in ("s3://b/k", "gs://b", "s3", "/s3://x", "https://x/y", "file:///x")
    ] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@contextmanager
def server(kind):
    """A port of this machine that refuses, is silent, or answers with a refusal (403)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind != "refuses":
            listener.listen()
        if kind == "answers":
            threading.Thread(target=refuse_once, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def refuse_once(listener):
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(object_store, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(object_store, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(object_store, "_reached", set())
    monkeypatch.setenv("S3_USE_HTTPS", "0")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "opened",
    [locations.locate, lambda path: files.read_bytes(path), lambda p: layout.list_versions(p)],
)
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("refuses", "cannot be reached (Connection refused)"),
        ("silent", "did not answer within 0 s"),
    ],
)
def test_a_store_that_does_not_answer_is_one_line_in_bounded_time(
    kind, why, opened, impatient, monkeypatch
):
    with server(kind) as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        started = time.monotonic()
        with pytest.raises(object_store.UnreachableStoreError) as caught:
            opened("s3://bucket/data")
        assert time.monotonic() - started < 5.0
    failure = failure_of(caught.value)
    assert failure.exit_code == 1
    assert failure.message == (
        f"s3://bucket/data: the object store at {endpoint} {why}: check that it runs, the network "
        "and S3_ENDPOINT, then run the same command again"
    )


def test_a_store_that_wants_a_signature_is_reached_and_asked_once(impatient, monkeypatch):
    with server("answers") as endpoint:
        monkeypatch.setenv("S3_ENDPOINT", endpoint)
        for _ in range(2):
            object_store.check_reachable("s3://bucket/data")


def test_other_paths_ask_no_store(impatient, monkeypatch):
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:1")
    for path in ("/data", "gs://bucket/data", "s3://"):
        object_store.check_reachable(path)


_SCRIPT = """
import sys
from beam_jobs.contracts import object_store
from beam_jobs.contracts.locations import locate

def work():
    folder, way = locate(sys.argv[1]), sys.argv[2]
    (folder / "file.txt").write_text("written")
    sys.stdout.write((folder / "file.txt").read_text())
    if way == "raise":
        raise ValueError("went wrong")
    return int(way)

object_store.run_to_exit(work)
"""


@pytest.mark.e2e
@pytest.mark.parametrize(("way", "code"), [("0", 0), ("raise", 1)])
def test_a_process_that_used_s3_ends_with_its_own_code(s3_folder, way, code):
    pytest.importorskip("tensorflow_io")
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, s3_folder, way],
        cwd=REPOSITORY,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.stdout == "written"
    assert ended.returncode == code, ended.stderr
    assert "pure virtual" not in ended.stderr
    assert ("ValueError: went wrong" in ended.stderr) == (way == "raise")


@pytest.mark.parametrize(("way", "code"), [("return", 3), ("exit", 7), ("raise", 1)])
def test_a_process_without_s3_ends_as_python_does(way, code):
    script = (
        "import sys; from beam_jobs.contracts import object_store\n"
        "def work():\n  if sys.argv[1] == 'raise': raise ValueError('went wrong')\n"
        "  if sys.argv[1] == 'exit': sys.exit(7)\n  return 3\n"
        "import atexit; atexit.register(lambda: sys.stdout.write('hook'))\n"
        "object_store.run_to_exit(work)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, way],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, "hook")


# The package is absent, or it is there but registers no file system, as it does under a
# TensorFlow that it was not built for.
_WITHOUT_TENSORFLOW_IO = """
import sys, types
sys.modules["tensorflow_io"] = None if sys.argv[1] == "absent" else types.ModuleType("io")
from beam_jobs.contracts import locations, object_store
locations.locate("/tmp").exists()
try:
    locations.locate("s3://bucket/key")
except object_store.MissingFilesystemError as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("absent", "is not installed: pip install tensorflow-io==0.37.1"),
        ("unloadable", "does not load under TensorFlow 2"),
    ],
)
def test_without_tensorflow_io_one_line_says_what_to_install(state, reason):
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TENSORFLOW_IO, state],
        cwd=REPOSITORY,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("s3://bucket/key: TensorFlow opens s3:// by tensorflow-io, ")
    assert reason in ended.stdout
    assert "\n" not in ended.stdout


def test_local_paths_do_not_import_tensorflow_io():
    script = (
        "import sys, pathlib; from beam_jobs.contracts import locations\n"
        "locations.locate('/tmp').exists(); locations.parse('s3://bucket/key')\n"
        "sys.exit('tensorflow_io' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=False).returncode == 0
    )
