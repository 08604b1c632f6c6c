"""Our own warnings reach the terminal, and notes of the libraries do not."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging, os
from beam_jobs.terminal import quiet
quiet.prepare_libraries(os.environ, verbose=False)
if {with_absl}:
    quiet.silence_absl()
logging.getLogger("models.training.checkpoints").warning("the newest one is set aside")
logging.getLogger("beam_jobs.build").info("a detail")
logging.getLogger("tfx.orchestration").warning("noise")
"""


@pytest.mark.parametrize("with_absl", [True, False], ids=["run", "build-labels"])
def test_our_warnings_are_seen_once_and_those_of_libraries_are_not(with_absl):
    command = [sys.executable, "-c", PROGRAM.format(with_absl=with_absl)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    expected = "WARNING models.training.checkpoints: the newest one is set aside\n"
    assert ended.stderr == expected
