"""Leases on a loopback S3 store: one holder, locks of killed jobs run out, loss is noticed."""

import time

import pytest

from beam_jobs.collect import job_folder
from beam_jobs.errors import DataError
from beam_jobs.storage import files, leases

LEASE_S = 0.6


@pytest.fixture
def lock(s3_folder) -> str:
    return f"{s3_folder}/.lock"


def test_the_second_is_refused_until_the_first_has_let_go(lock):
    with leases.hold(lock, "first", LEASE_S):
        assert leases.holder(lock) == "first"
        begun = time.monotonic()
        with (
            pytest.raises(DataError, match="another job is writing") as error,
            leases.hold(lock, "second", 2.0),
        ):
            pass
        assert error.value.reason == "folder_in_use"
        # It saw the first renew, and did not wait for its own lease.
        assert time.monotonic() - begun < 1.9
    assert not files.exists(lock)
    with leases.hold(lock, "second", LEASE_S):
        assert leases.holder(lock) == "second"


def test_the_lock_of_a_killed_job_runs_out(lock):
    files.write_bytes(lock, b"killed\n7")
    watch = leases.LockWatch(lock, LEASE_S)
    assert not watch.is_stale()
    begun = time.monotonic()
    with leases.hold(lock, "next", LEASE_S):
        assert time.monotonic() - begun >= LEASE_S
        assert leases.holder(lock) == "next"
        assert not watch.is_stale()


def test_who_lost_the_lock_neither_takes_it_back_nor_deletes_it(lock):
    with leases.hold(lock, "first", LEASE_S):
        files.write_bytes(lock, b"second\n0")
        time.sleep(LEASE_S)
        assert files.read_bytes(lock) == b"second\n0"
    assert leases.holder(lock) == "second"


def test_workers_learn_why_to_stop_and_of_another_holder(s3_folder):
    with job_folder.hold(s3_folder, "{}") as folder:
        watch, other = job_folder.Watch(folder), job_folder.Watch(folder)
        assert watch.why_stopped() is None
        watch.stop("quota_exhausted", "the month's\ncompute is used up")
        for found in (watch.why_stopped(), other.why_stopped(), folder.why_stopped()):
            assert (str(found), found.reason) == (
                "the month's compute is used up",
                "quota_exhausted",
            )
        files.delete_file(f"{s3_folder}/.stop")
        files.write_bytes(folder.lock_path, b"another\n0")
        assert job_folder.Watch(folder).why_stopped().reason == "orphaned"
    files.delete_file(folder.lock_path)
    with (
        pytest.raises(DataError, match="begun with other settings"),
        job_folder.hold(s3_folder, '{"a":1}'),
    ):
        pass
    assert not files.exists(folder.lock_path)
