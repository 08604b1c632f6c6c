"""Locks: the second job is refused, and a job that was killed holds nothing."""

import functools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.errors import DataError
from beam_jobs.storage import files, leases, locks
from tests.data.runs.repository import REPOSITORY

_HOLDER = """
import subprocess, sys, time
from beam_jobs.storage import locks
with locks.hold(sys.argv[1], "the folder"):
    # A child that outlives the holder must not keep its lock.
    subprocess.Popen(["sleep", "60"], close_fds=False)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Hold the lock `lock` in another process, and yield that process."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_the_lock_of_another_process_is_found_until_it_is_killed(tmp_path, other):
    lock = tmp_path / "lock"
    (tmp_path / "left").write_text("process 1 on x")
    assert locks.find_held([tmp_path / "none", tmp_path / "left", lock]) == str(lock)
    other.kill()
    other.wait()
    assert locks.find_held([lock]) == ""
    assert lock.exists(), "who looks must not remove it"


def test_another_process_holds_until_it_is_killed(tmp_path, other):
    lock = tmp_path / "lock"
    with (
        pytest.raises(
            DataError, match=rf"the folder: another job .*\(process {other.pid} on "
        ) as e,
        locks.hold(lock, "the folder"),
    ):
        pass
    assert (e.value.reason, e.value.exit_code) == ("folder_in_use", ExitCode.CRASH)
    assert "\n" not in str(e.value)
    assert lock.exists(), "who is refused must not remove the other's lock"
    # Only the holder: its child lives on.
    other.kill()
    other.wait()
    with locks.hold(lock, "the folder"):
        assert lock.read_text().startswith(f"process {os.getpid()} ")
    assert not lock.exists()


def test_a_second_job_of_one_process_is_refused_too(tmp_path):
    with locks.hold(tmp_path / "new" / "lock", "it"):
        with (
            pytest.raises(DataError, match="it: another job"),
            locks.hold(tmp_path / "new" / ".." / "new" / "lock", "it"),
        ):
            pass
        with locks.hold(tmp_path / "lock", "another output"):
            pass
    with locks.hold(tmp_path / "new" / "lock", "it"):
        pass


def test_there_is_one_holder_at_a_time_though_each_removes_the_file(tmp_path):
    """Many threads take and release one lock; no two are ever inside."""
    inside, refused, overlaps = [], [], []

    def work() -> None:
        for _ in range(200):
            try:
                with locks.hold(tmp_path / "lock", "it"):
                    inside.append(1)
                    overlaps.append(len(inside))
                    inside.pop()
            except DataError:
                refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(overlaps) + len(refused) == 8 * 200
    assert set(overlaps) == {1}
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with locks.hold(tmp_path / "lock", "it"):
        pass
    assert "it: this file system has no locks (No locks available)" in caplog.text
    assert not Path(tmp_path / "lock").exists()


def test_an_output_on_a_store_is_held_by_a_lease(s3_folder, monkeypatch):
    short = functools.partial(leases.hold, lease_seconds=5.0)
    monkeypatch.setattr(leases, "hold", short)
    with (
        locks.hold(f"{s3_folder}/lock", "it"),
        pytest.raises(DataError, match="another job"),
        locks.hold(f"{s3_folder}/lock", "it"),
    ):
        pass
    assert not files.exists(f"{s3_folder}/lock")
