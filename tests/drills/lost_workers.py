"""Kill a worker of a pretraining, and restart workers as Kubernetes would.

    python -m tests.drills.lost_workers

Arguments are numbers of cases, from 0; without any, all run. Each worker is a process
of this machine. A Job starts a worker again some seconds after it has ended with an
error. A JobSet ends and starts all of them as soon as one has. The pretraining is
killed after its first checkpoint, in the middle of it. Then the first worker publishes.
The published weights must be those of a pretraining of as many workers that nobody
disturbed: sums over other numbers of workers round differently, which grows from step
to step. One JSON line for each case says what happened.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_REPOSITORY = Path(__file__).parents[2]

from beam_jobs.terminal.quiet import prepare_libraries  # noqa: E402

prepare_libraries(os.environ, verbose=False)

import numpy as np  # noqa: E402

from beam_jobs.contracts import settings  # noqa: E402
from components.trainers import workers  # noqa: E402
from models.config import EncoderConfig, PretrainConfig  # noqa: E402
from models.published import export  # noqa: E402
from tests.data.shards import make_shards  # noqa: E402

NUM_STEPS = 24
BACK_OFF_S = 10.0
"""The first wait of the Job controller before it replaces a pod that failed."""
TIMEOUT_S = 1800.0
CONFIG = PretrainConfig(
    encoder=EncoderConfig(backbone="small", embedding_dim=8),
    num_steps=NUM_STEPS,
    global_batch_size=6,
    num_eval_batches=1,
    checkpoint_every=4,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A worker that is killed, and the kind of object that starts it again.

    Attributes:
        num_workers: processes.
        victim: index of the worker that gets SIGKILL.
        restarts: as a Job or as a JobSet does.
    """

    num_workers: int
    victim: int
    restarts: Literal["job", "jobset"]


CASES = (
    Case(num_workers=2, victim=1, restarts="job"),
    Case(num_workers=2, victim=0, restarts="job"),
    Case(num_workers=3, victim=2, restarts="job"),
    Case(num_workers=3, victim=0, restarts="job"),
    Case(num_workers=3, victim=2, restarts="jobset"),
)


class Workers:
    """The processes of a training, which are started again when they fail."""

    def __init__(self, case: Case, version: Path, root: Path) -> None:
        self._case, self._version, self._root = case, version, root
        free = [socket.create_server(("127.0.0.1", 0)) for _ in range(case.num_workers)]
        self._hosts = [f"127.0.0.1:{one.getsockname()[1]}" for one in free]
        for one in free:
            one.close()
        self.processes = {index: self._start(index) for index in range(case.num_workers)}
        self.num_failures = dict.fromkeys(self.processes, 0)
        self._failed_at: dict[int, float] = {}

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        config = settings.canonical_json(CONFIG)
        module = "tests.data.faults.first_worker"
        first = ["-m", module, str(self._version), str(self._root), config]
        others = ["-m", "pipeline", "follow", "--poll", "0.2"]
        task = {"type": "worker", "index": index}
        several = {
            "TF_CONFIG": json.dumps({"cluster": {"worker": self._hosts}, "task": task}),
            workers.FOLDER: str(self._root / "workers"),
        }
        log = (self._root / f"worker-{index}.log").open("ab")
        return subprocess.Popen(
            [sys.executable, *(first if index == 0 else others)],
            cwd=_REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": str(_REPOSITORY),
                **(several if self._case.num_workers > 1 else {}),
            },
            stdout=log,
            stderr=log,
        )

    def is_done(self) -> bool:
        """Start again what failed, and return whether the first worker has ended well.

        Raises:
            RuntimeError: a worker failed more often than the Job allows.
        """
        if self.processes[0].poll() == 0:
            return True
        for index, process in self.processes.items():
            if process.poll() not in (None, 0) and index not in self._failed_at:
                self._failed_at[index] = time.monotonic()
                self.num_failures[index] += 1
        if self._failed_at and self._case.restarts == "jobset":
            self.end()
            self._failed_at.clear()
            self.processes = {index: self._start(index) for index in self.processes}
        for index, failed_at in list(self._failed_at.items()):
            if time.monotonic() > failed_at + BACK_OFF_S:
                del self._failed_at[index]
                self.processes[index] = self._start(index)
        # The backoffLimit without num_retries.
        if sum(self.num_failures.values()) > 2 * self._case.num_workers:
            last = (self._root / "worker-0.log").read_text(errors="replace").splitlines()[-1:]
            raise RuntimeError(f"{self._case}: failures by worker {self.num_failures}: {last}")
        return False

    def end(self) -> None:
        """Kill the processes that are left."""
        for process in self.processes.values():
            process.kill()
            process.wait()


def _wait(condition, pause_s: float) -> float:
    """Wait for a condition and return the seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + TIMEOUT_S:
            raise TimeoutError(f"{condition} after {TIMEOUT_S:.0f} s")
        time.sleep(pause_s)
    return time.monotonic() - began


def _weights(root: Path) -> list[np.ndarray]:
    encoders = export.load_encoders(str(root / "Format-Serving"))
    return [weight for name in sorted(encoders) for weight in encoders[name].get_weights()]


def _undisturbed(case: Case, version: Path, root: Path) -> list[np.ndarray]:
    """Return the weights of a pretraining of as many workers as in a case."""
    root.mkdir()
    group = Workers(case, version, root)
    try:
        _wait(group.is_done, 0.1)
    finally:
        group.end()
    if any(group.num_failures.values()):
        raise RuntimeError(f"{case}: a worker failed undisturbed: {group.num_failures}")
    return _weights(root)


def _run(case: Case, version: Path, root: Path, expected: list[np.ndarray]) -> dict[str, object]:
    """Kill and restart; return what happened.

    Raises:
        RuntimeError: the end is not that of the undisturbed pretraining.
    """
    root.mkdir()
    group = Workers(case, version, root)
    saved = f"checkpoints/**/step-{CONFIG.checkpoint_every:09d}/progress.json"
    try:
        _wait(lambda: list(root.glob(saved)) or group.is_done(), 0.01)
        group.processes[case.victim].send_signal(signal.SIGKILL)
        last = max(path.parent.name for path in root.glob("checkpoints/**/progress.json"))
        if (root / "Format-Serving").exists() or last == f"step-{NUM_STEPS:09d}":
            raise RuntimeError(f"{case}: the pretraining had ended before the kill")
        seconds = _wait(group.is_done, 0.1)
        codes = {
            index: process.wait(timeout=300)
            for index, process in group.processes.items()
            if index > 0
        }
    finally:
        group.end()
    resumed = [
        line
        for line in (root / "worker-0.log").read_text(errors="replace").splitlines()
        if "resumed after step" in line
    ]
    difference = max(
        float(np.abs(one - other).max())
        for one, other in zip(_weights(root), expected, strict=True)
    )
    if difference > 1e-5:
        raise RuntimeError(f"{case}: published weights differ by {difference}")
    return {
        **dataclasses.asdict(case),
        "killed_after": last,
        "resumed": resumed[-1:],
        "seconds_from_kill_to_end": round(seconds, 1),
        "failures_by_worker": group.num_failures,
        "codes_of_the_others": codes,
        "largest_difference_of_weights": difference,
        "published": [str(path.relative_to(root)) for path in root.glob("**/Format-Serving")],
        "events_of_followers": [str(path) for path in root.glob("workers/*/**/*tfevents*")],
    }


def main() -> None:
    """Run the cases."""
    with tempfile.TemporaryDirectory() as folder:
        version = make_shards.make_version(Path(folder) / "pairs")
        expected: dict[int, list[np.ndarray]] = {}
        for number in map(int, sys.argv[1:] or range(len(CASES))):
            case = CASES[number]
            if case.num_workers not in expected:
                undisturbed = Path(folder) / f"undisturbed-{case.num_workers}"
                expected[case.num_workers] = _undisturbed(case, version, undisturbed)
            wanted = expected[case.num_workers]
            print(json.dumps(_run(case, version, Path(folder) / str(number), wanted)), flush=True)


if __name__ == "__main__":
    main()
