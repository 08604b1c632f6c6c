"""Run `fetch` against an emulator, kill it with -9, and report what it had asked for."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from beam_jobs.collect.config import FetchConfig
from beam_jobs.contracts import settings
from tests.data.runs.repository import REPOSITORY


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file that a build reads."""
    files = [*folder.rglob("*.tif"), folder / "items.ndjson"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def answered(log: list[dict[str, Any]]) -> Counter[str]:
    """Return request key -> number of complete answers that the server sent."""
    return Counter(
        line["key"] for line in log if line["status"] == 200 and line["fault"] in (None, "slow")
    )


def num_asked_twice(log: list[dict[str, Any]], killed_at: float, concurrency: int) -> int:
    """Return how many requests were answered completely and then asked again.

    A request succeeds when its answer is on the disk or in the ledger. At the kill, each
    thread may have one answer that was not stored yet. Only these may be asked again, so
    they were answered within the last seconds before the kill.

    Raises:
        AssertionError: a request was asked again that was answered long before the
            kill, or more than once.
    """
    counts = answered(log)
    twice = {key for key, number in counts.items() if number > 1}
    first: dict[str, float] = {}
    for line in log:
        if line["key"] in twice and line["status"] == 200:
            first.setdefault(line["key"], line["time"])
    assert max(counts.values()) <= 2, "asked again after the resumed run had its answer"
    assert all(
        killed_at - 5.0 <= time_of_answer <= killed_at + 1.0 for time_of_answer in first.values()
    ), first
    assert len(twice) <= concurrency, twice
    return len(twice)


def overrides(config: FetchConfig) -> list[str]:
    """Return the config as `--set` options."""

    def flat(values: dict[str, Any], path: str = "") -> list[str]:
        found = []
        for name, value in values.items():
            if isinstance(value, dict):
                found += flat(value, f"{path}{name}.")
            elif isinstance(value, (int, float, str)) and value != "":
                found += ["--set", f"{path}{name}={value}"]
        return found

    return flat(settings.to_dict(config))


def num_done(folder: Path) -> int:
    """Return the number of pairs in the ledger."""
    return sum(
        path.read_bytes().count(b'"event":"done"') for path in (folder / "ledger").glob("*.ndjson")
    )


def start(
    environment: dict[str, str],
    places: Path,
    folder: Path,
    config: FetchConfig,
    stderr: int = subprocess.DEVNULL,
) -> subprocess.Popen:
    """Start the command in a process group of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "beam_jobs", "fetch", "--places", str(places)]
    return subprocess.Popen(
        [*command, "--output", str(folder), *overrides(config)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stderr=stderr,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_until_done(process: subprocess.Popen, folder: Path, number: int) -> None:
    """Wait until the ledger has so many pairs.

    Raises:
        RuntimeError: the job ended before.
    """
    deadline = time.monotonic() + 600
    while num_done(folder) < number:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the job ended too early")
        time.sleep(0.02)


def kill_in_the_middle(
    server: Any, places: Path, folder: Path, config: FetchConfig, after: int
) -> float:
    """Run the command and kill it and its workers with -9 when `after` pairs are done.

    Returns:
        Time of the kill, in seconds since 1970.
    """
    process = start(server.environment, places, folder, config)
    wait_until_done(process, folder, after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.time()
