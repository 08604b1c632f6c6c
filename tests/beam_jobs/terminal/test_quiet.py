"""What reaches the terminal: our own warnings, and no notes of the libraries."""

import subprocess
import sys

PROGRAM = """
import logging, os
from beam_jobs.terminal import quiet
quiet.prepare_libraries(os.environ, verbose=False)
quiet.silence_absl()
logging.getLogger("models.training.checkpoints").warning("the newest one is set aside")
logging.getLogger("beam_jobs.build").info("a detail")
logging.getLogger("tfx.orchestration").warning("noise")
"""


def test_our_warnings_are_seen_and_those_of_libraries_are_not():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    expected = "WARNING models.training.checkpoints: the newest one is set aside\n"
    assert ended.stderr == expected
