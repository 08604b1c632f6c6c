"""Which faults are retried, how often, and how long a node waits."""

import errno

import ml_metadata.errors
import pytest
import tensorflow as tf

from beam_jobs.contracts import settings
from beam_jobs.contracts.object_store import UnreachableStoreError
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError, NothingNewError, RefusedError
from pipeline.metadata_store import UnreachableDatabaseError
from pipeline.runners.retrying import RetryConfig, is_transient, retried

QUICK = RetryConfig(num_retries=2, first_wait_seconds=0.0, longest_wait_seconds=0.0)
STEP = "UnreachableStoreError: s3://b/x: the object store is away [while running 'Read/Read']"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError("gone"), True),
        (OSError(errno.ETIMEDOUT, "timed out"), True),
        (UnreachableStoreError("s3://b: away"), True),
        (UnreachableDatabaseError("mysql://db: away"), True),
        (DataError("no answer", "no_answer"), True),
        (tf.errors.UnavailableError(None, None, "away"), True),
        (ml_metadata.errors.InternalError("Lost connection to MySQL server"), True),
        (RuntimeError(STEP), True),
        (RuntimeError(f"Traceback (most recent call last):\n  File x\n{STEP}"), True),
        (RuntimeError(f"RuntimeError: {STEP}"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (FileNotFoundError("x"), False),
        (RefusedError("too weak", "encoder_refused"), False),
        (NothingNewError("nothing", "nothing_new"), False),
        (DataError("bad"), False),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), False),
        (RuntimeError("ValueError: x [while running 'Read']"), False),
        (RuntimeError("plain"), False),
        (KeyError("x"), False),
    ],
    ids=repr,
)
def test_only_faults_that_pass_are_transient(error, expected):
    assert is_transient(error) is expected


def failing(errors):
    """A function that raises these errors in turn and then returns."""
    rest = list(errors)

    def work():
        if rest:
            raise rest.pop(0)
        return "done"

    return work


def test_work_is_tried_again_until_the_retries_are_used_up():
    lines = []

    def try_all(errors, config=QUICK):
        return retried(failing(errors), config, "Node", lambda line, _: lines.append(line))

    away = [ConnectionResetError(f"away {i}") for i in range(4)]
    assert try_all(away[:2]) == "done"
    assert lines == [
        "Node: away 0; retry 1 of 2 in 0 s",
        "Node: away 1; retry 2 of 2 in 0 s",
    ]
    with pytest.raises(ConnectionResetError, match="away 2") as last:
        try_all(away)
    # A retry around this one does not begin anew.
    with pytest.raises(ConnectionResetError):
        try_all([last.value, away[3]])
    assert len(lines) == 4
    with pytest.raises(KeyError):
        try_all([KeyError("x")])
    assert len(lines) == 4


def test_waits_double_up_to_a_limit():
    config = RetryConfig(num_retries=5, first_wait_seconds=2.0, longest_wait_seconds=10.0)
    assert list(config.waits()) == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert list(RetryConfig(num_retries=0).waits()) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"num_retries": -1}, "num_retries must be at least 0, got -1"),
        ({"first_wait_seconds": 60.0}, "within 0 and longest_wait_seconds 30, got 60"),
    ],
)
def test_wrong_settings_are_refused(values, told):
    with pytest.raises(SettingsError, match=told):
        settings.from_dict(RetryConfig, values, "retries")
