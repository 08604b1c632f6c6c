"""Workers of the local runner end with the process that started them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.runs.repository import REPOSITORY

_WORKER = """
import time
from beam_jobs import local_worker
local_worker.end_with_parent()
print(flush=True)
time.sleep(60)
"""
_DRIVER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
time.sleep(60)
"""


def is_running(process_id: int) -> bool:
    try:
        with open(f"/proc/{process_id}/stat") as file:
            # A process that has ended may wait to be collected by its new parent.
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_worker_whose_driver_was_killed_ends():
    command = [sys.executable, "-c", _DRIVER, _WORKER]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as driver:
        worker = int(driver.stdout.readline())
        time.sleep(1.0)
        assert is_running(worker)
        driver.kill()
    deadline = time.monotonic() + 30
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)
