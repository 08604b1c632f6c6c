"""Failures: which exit code and which line each kind of error ends in."""

import errno
import gzip
import json

import apache_beam as beam
import numpy as np
import pytest
import rasterio.errors
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs import runner
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.labels import get_schema
from beam_jobs.contracts.manifest import FormatError, ManifestError
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.earth_engine.errors import EarthEngineError, from_status
from beam_jobs.errors import DataError, NothingNewError, RefusedError
from beam_jobs.terminal.failures import failure_of
from models.health.monitor import CollapseError
from models.training.step_log import NoValidPairError


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (SettingsError("x"), 2),
        (FileExistsError("x"), 2),
        (DataError("x", "version_exists"), 2),
        (EarthEngineError("x", "no_credentials"), 2),
        (EarthEngineError("x", "too_large"), 2),
        (DataError("x"), 3),
        (ManifestError("x"), 3),
        (FormatError("x"), 3),
        (NoValidPairError("x"), 3),
        (FileNotFoundError("x"), 3),
        (EOFError("x"), 3),
        (gzip.BadGzipFile("x"), 3),
        (json.JSONDecodeError("x", "y", 0), 3),
        (tf.errors.DataLossError(None, None, "x"), 3),
        (rasterio.errors.RasterioIOError("x"), 3),
        (EarthEngineError("x", "not_found"), 3),
        (RefusedError("x", "overlap"), 4),
        (CollapseError("x"), 4),
        (NothingNewError("x"), 5),
        (from_status("x", 500, "x"), 1),
        (DataError("x", "interrupted"), 1),
        (PermissionError("x"), 1),
        (RuntimeError("x"), 1),
        (KeyError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_kind_of_error_has_its_exit_code(error, exit_code):
    failure = failure_of(error)
    assert failure.exit_code == exit_code
    assert "x" in failure.message
    assert "\n" not in failure.message


def test_a_name_that_is_too_long_is_told_with_its_limit(tmp_path):
    with pytest.raises(OSError, match="too long") as error:
        (tmp_path / ("n" * 300)).mkdir()
    failure = failure_of(error.value)
    assert failure.exit_code == ExitCode.USAGE
    assert failure.message.startswith(f"{tmp_path}/nnn")
    assert failure.message.endswith("(255 bytes on most): use a shorter one")


def test_value_error_is_bad_data_from_our_code_and_a_crash_from_a_library():
    with pytest.raises(ValueError, match="unknown label schema") as ours:
        get_schema("water-and-fire")
    assert failure_of(ours.value).exit_code == ExitCode.BAD_DATA
    with pytest.raises(ValueError, match="cannot reshape") as foreign:
        np.zeros(2).reshape(3)
    assert failure_of(foreign.value).exit_code == ExitCode.CRASH


def test_long_message_of_a_library_is_cut_to_its_first_line():
    failure = failure_of(RuntimeError("\nNode: conv\nmany\nlines"))
    assert failure.message == "Node: conv  (--debug shows all)"


def test_unexpected_error_is_named():
    assert failure_of(KeyError("x")).message == "unexpected KeyError: 'x'  (--debug shows all)"


@pytest.mark.parametrize(
    ("module", "group"), [("tfx.dsl", "pipeline"), ("ml_metadata", "pipeline"), ("ee", "earth")]
)
def test_missing_module_of_an_optional_group_says_how_to_install_it(module, group):
    failure = failure_of(ModuleNotFoundError(f"No module named {module!r}", name=module), "run")
    assert failure.exit_code == ExitCode.USAGE
    assert failure.message.startswith(f"terrapair run needs the {group}")


# What Beam raises when a worker process fails, shortened.
WORKER_TEXT = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1498, in process
    return self.do_fn_invoker.invoke_process(windowed_value)
beam_jobs.errors.DataError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 316, in _execute
    response = task()
{raised} [while running 'Map(fail)-ptransform-4']

"""
ERRORS = [
    (DataError("a: no scene", "no_scene"), 3, "a: no scene"),
    (RefusedError("a: refused"), 4, "a: refused"),
    (KeyError("a"), 1, "unexpected KeyError: "),
]


@pytest.mark.parametrize(("error", "exit_code", "message"), ERRORS)
def test_error_of_a_beam_worker_process_is_known_by_its_type(error, exit_code, message):
    kind = type(error)
    name = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
    failure = failure_of(RuntimeError(WORKER_TEXT.format(raised=f"{name}: {error}")))
    assert failure.exit_code == exit_code
    assert failure.message.startswith(message)
    assert "while running" not in failure.message


@pytest.mark.parametrize(("error", "exit_code", "message"), ERRORS)
def test_error_of_a_beam_step_in_this_process_is_known_by_its_type(error, exit_code, message):
    def fail(_):
        raise error

    def work():
        with beam.Pipeline(options=runner.pipeline_options(1)) as pipeline:
            _ = pipeline | beam.Create(["a"]) | beam.Map(fail)

    with pytest.raises(type(error), match="a") as raised:
        work()
    failure = failure_of(raised.value)
    assert failure.exit_code == exit_code
    assert failure.message.startswith(message)
    assert "while running" not in failure.message


def test_workers_of_the_local_runner_print_nothing(capfd, monkeypatch):
    # As every verb of the program sets it.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    options = PipelineOptions(runner.local_arguments(2))
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create(["a", "b"]) | beam.Map(str.upper)
    assert capfd.readouterr() == ("", "")


FULL = "no space left on the disk: free some space"
TF_FULL = "/a/b.gz; No space left on device"
OPERATION = "{{function_node __wrapped__SaveV2_device_/job:localhost/device:CPU:0}} "


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), f"/a/b: {FULL}"),
        (OSError(errno.ENOSPC, "No space", "/a/b", None, "/c/d"), f"/c/d: {FULL}"),
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a/b"), "/a/b: the disk quota"),
        (OSError(errno.EFBIG, "File too large", "/a/b"), "/a/b: the file would be larger"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: permission denied"),
        (tf.errors.ResourceExhaustedError(None, None, TF_FULL), f"/a/b.gz: {FULL}"),
        (
            tf.errors.ResourceExhaustedError(
                None, None, f"{OPERATION}/a/part.tempstate17; No space left on device [Op:SaveV2]"
            ),
            f"/a/part: {FULL}",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "/a/b; Too many open files"),
            "/a/b: too many open files",
        ),
        (
            RuntimeError(
                "tensorflow.python.framework.errors_impl.ResourceExhaustedError: "
                f"{TF_FULL} [while running 'Write']"
            ),
            f"/a/b.gz: {FULL}",
        ),
        (
            RuntimeError("OSError: [Errno 28] No space left on device: '/a/b' [while running 'x']"),
            f"/a/b: {FULL}",
        ),
        (
            RuntimeError(
                WORKER_TEXT.format(
                    raised="RuntimeError: OSError: [Errno 28] No space left on device: '/a/b'"
                )
            ),
            f"/a/b: {FULL}",
        ),
    ],
)
def test_a_full_disk_is_told_with_path_and_cure_whoever_meets_it(error, start):
    failure = failure_of(error)
    assert failure.exit_code == ExitCode.CRASH
    assert failure.message.startswith(start)
    assert "\n" not in failure.message
    assert "Errno" not in failure.message or "/a" not in start


def test_a_gpu_without_memory_is_not_taken_for_a_full_disk():
    text = (
        f"{OPERATION}OOM when allocating tensor with shape[64,512,512] on "
        "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc [Op:Conv2D]"
    )
    failure = failure_of(tf.errors.ResourceExhaustedError(None, None, text))
    assert failure.exit_code == ExitCode.CRASH
    assert "out of memory: lower global_batch_size" in failure.message
    assert "disk" not in failure.message


def test_a_real_write_to_a_full_device_is_one_line():
    with pytest.raises(OSError, match="No space left") as ours, open("/dev/full", "w") as file:
        file.write("x" * 100_000)
    with (
        pytest.raises(tf.errors.ResourceExhaustedError) as theirs,
        tf.io.TFRecordWriter("/dev/full") as writer,
    ):
        writer.write(bytes(10_000_000))
    assert failure_of(ours.value).message.startswith(FULL)
    assert failure_of(theirs.value).message.startswith(f"/dev/full: {FULL}")


def test_a_message_of_tensorflow_is_shown_without_its_operation():
    text = f"{OPERATION}inflate() failed with error -3 [Op:IteratorGetNext] name: "
    failure = failure_of(tf.errors.DataLossError(None, None, text))
    assert failure.message == "inflate() failed with error -3"
