"""Kill `predict` with -9 ten times in the middle of five scenes.

Each run is a command of its own with two worker processes, and its whole group is
killed at a random moment: among the parts, and among the files of maps. The maps must
have the bytes of a run that nothing disturbed.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.data.faults import killed_predict
from tests.data.runs.repository import REPOSITORY

NUM_SCENES, SIZE_PX, NUM_PARTS = 5, 640, 16
SETTINGS = (
    "window.size_px=192",
    "window.margin_px=16",
    "window.blend_px=16",
    "part_height_px=144",
    "part_width_px=144",
)


def measure() -> dict[str, object]:
    """Return the states at the kills, the times, and whether the bytes are the same."""
    from beam_jobs import config as c
    from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
    from beam_jobs.simulation.simulate import simulate
    from tests.data.networks import make_segmenter

    seed = random.randrange(1 << 30)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        simulated = c.SimulateConfig(num_places=NUM_SCENES, num_dates=1, size_px=SIZE_PX)
        listed = simulate(simulated, root / "scenes")
        model = make_segmenter.publish(root / "flood/1", {"s1": S1_DEFAULT_BANDS})

        def start(output: Path) -> subprocess.Popen:
            command = [sys.executable, "-W", "ignore", "-m", "beam_jobs", "predict", "--quiet"]
            command += ["--model", model, "--scenes", str(listed), "--output", str(output)]
            for setting in (*SETTINGS, "num_workers=2"):
                command += ["--set", setting]
            return subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

        begun = time.monotonic()
        if start(root / "undisturbed").wait():
            raise RuntimeError("predict failed")
        undisturbed_s = time.monotonic() - begun
        killed = root / "killed"
        states, codes = [], []
        moments = killed_predict.moments(
            seed, num_parts=NUM_PARTS * NUM_SCENES, num_maps=NUM_SCENES
        )
        begun = time.monotonic()
        for moment in moments:
            process = start(killed)
            killed_predict.kill_at(
                moment,
                process.pid,
                killed,
                has_ended=lambda process=process: process.poll() is not None,
            )
            codes.append(process.wait())
            now = killed_predict.look(killed)
            states.append([now.num_parts, now.num_maps, len(now.writing)])
        codes.append(start(killed).wait())
        return {
            "seed": seed,
            "exit_codes": codes,
            "num_kills": codes.count(-signal.SIGKILL),
            "parts_maps_writing_at_kills": states,
            "same_bytes": _contents(killed) == _contents(root / "undisturbed"),
            "num_files": len(_contents(killed)),
            "undisturbed_s": round(undisturbed_s, 1),
            "killed_s": round(time.monotonic() - begun, 1),
        }


def _contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }
