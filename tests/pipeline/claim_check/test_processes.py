"""Jobs in processes: all are done, and none is left running after an error or a kill."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.claim_check import processes
from tests.data.faults.process_jobs import note_process, note_process_slowly


@pytest.mark.e2e
def test_jobs_are_done_in_other_processes_and_counted_until_an_error(tmp_path):
    calls = []
    jobs = [str(tmp_path / str(number)) for number in range(4)]
    many = [str(tmp_path / "bad"), *(str(tmp_path / f"later-{n}") for n in range(40))]
    with processes.workers(2) as pool:
        for some in (jobs[:3], jobs[3:]):
            processes.run_all(
                pool, some, note_process, lambda done, total: calls.append((done, total))
            )
        with pytest.raises(ValueError, match="bad job"):
            processes.run_all(pool, many, note_process_slowly, lambda done, total: None)
    # The first error ends it.
    assert len(list(tmp_path.glob("later-*"))) < 40
    workers = {int(Path(job).read_text()) for job in jobs}
    assert 1 <= len(workers) <= 2
    assert os.getpid() not in workers
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3), (0, 1), (1, 1)]


def test_one_job_at_a_time_needs_no_other_process(tmp_path):
    calls = []
    jobs = [str(tmp_path / str(number)) for number in range(3)]
    with processes.workers(1) as pool:
        processes.run_all(pool, jobs, note_process, lambda done, total: calls.append((done, total)))
    assert {int(Path(job).read_text()) for job in jobs} == {os.getpid()}
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_no_job_needs_no_process():
    calls = []
    with processes.workers(2) as pool:
        processes.run_all(pool, [], note_process, lambda done, total: calls.append((done, total)))
        assert not multiprocessing.active_children()
    assert calls == [(0, 0)]


def test_the_first_error_in_this_process_ends_it(tmp_path):
    jobs = [str(tmp_path / "bad"), *(str(tmp_path / str(number)) for number in range(20))]
    with pytest.raises(ValueError, match="bad job"), processes.workers(1) as pool:
        processes.run_all(pool, jobs, note_process, lambda done, total: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys; from pipeline.claim_check import processes\n"
        "from tests.data.faults import process_jobs\n"
        "with processes.workers(2) as pool:"
        " processes.run_all(pool, sys.argv[1:], process_jobs.note_process_and_sleep,"
        " lambda done, total: None)"
    )
    job = tmp_path / "job"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(job)], env=environment
    )
    deadline = time.monotonic() + 120
    while not (job.exists() and job.read_text()):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.2)
    worker = int(job.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while (
        Path(f"/proc/{worker}").exists()
        and "Z" not in Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2][:3]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
