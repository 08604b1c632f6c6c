"""Runs that are killed with -9 make the maps of a run that nothing disturbed."""

import hashlib
import json
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from beam_jobs.contracts import settings
from beam_jobs.predict import driver, segmenters
from tests.data.runs.repository import REPOSITORY

NUM_MAPS, NUM_PARTS = 5, 45


def contents(root):
    """The hash of every file of a folder, also of hidden ones."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.e2e
def test_ten_kills_in_the_middle_of_five_scenes_change_no_byte(radar, flood, config, tmp_path):
    listed = radar(NUM_MAPS)
    seed = random.randrange(1 << 30)
    # The folder does not exist yet: the first kill may come before it is made.
    command = [sys.executable, "-W", "ignore", REPOSITORY / "tests/data/faults/killed_predict.py"]
    command += [flood, listed, tmp_path / "killed", json.dumps(settings.to_dict(config)), str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr[-3000:]}"
    *killed, last = json.loads(ended.stdout.splitlines()[-1])
    assert [state[0] for state in killed] == [-signal.SIGKILL] * 10, seed
    assert last == [0, 0, NUM_MAPS, 0], seed
    # Work was lost in every phase: among parts, and among the files of maps.
    assert any(0 < num_parts < NUM_PARTS for _, num_parts, num_maps, _ in killed), killed
    assert any(num_writing for *_, num_writing in killed), killed

    # Two processes: that makes no difference, either.
    undisturbed = tmp_path / "undisturbed"
    two = replace(config, num_workers=2)
    driver.predict(two, segmenters.find(flood), [str(listed)], str(undisturbed))
    assert contents(tmp_path / "killed") == contents(undisturbed), seed
