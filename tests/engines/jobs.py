"""The four data jobs on simulated scenes: their inputs, their commands, their files."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.simulation.simulate import simulate
from beam_jobs.storage.files import PARTIAL_MARK
from tests.engines.clusters import check_ended

REPOSITORY = Path(__file__).parents[2]
VERBS = ("build-pairs", "build-labels", "predict", "fetch")
NUM_PLACES = 12
_LOOK_SECONDS = 0.05
_MEMORY_SECONDS = 0.5
_TIMEOUT_SECONDS = 900.0
_BUILD = (
    "--set",
    "quality.max_cloud_fraction=1.0",
    "--set",
    "split.block_size_km=1.28",
    # Few and large shards, so that writing one takes a while.
    "--set",
    "shards.num_examples_per_shard=100000",
)


class DifferenceError(Exception):
    """The cluster left other files than the local runner."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the jobs read.

    Attributes:
        catalog: of the simulated scenes.
        model: folder of a published segmenter.
        places: file of places to fetch.
        environment: variables of the emulator of Earth Engine.
    """

    catalog: Path
    model: Path
    places: Path
    environment: Mapping[str, str]

    def command(self, verb: str, output: Path, beam_options: Sequence[str] = ()) -> list[str]:
        """Return the command of a job."""
        words = [sys.executable, "-W", "ignore", "-m", "beam_jobs", verb, "--output", str(output)]
        if verb.startswith("build"):
            words += ["--catalog", str(self.catalog), *_BUILD]
        if verb == "build-labels":
            words += ["--set", "label.schema=water", "--set", "label.label_from=s1"]
        if verb == "predict":
            words += ["--model", str(self.model), "--scenes", str(self.catalog)]
            words += ["--set", "part_height_px=256", "--set", "part_width_px=256"]
            words += ["--set", "window.size_px=128"]
            words += ["--set", "window.margin_px=16", "--set", "window.blend_px=8"]
        if verb == "fetch":
            words += ["--places", str(self.places), "--set", "collect.size_px=64"]
            words += ["--set", "collect.max_cloud_fraction=1.0", "--set", "quota.num_workers=2"]
            words += ["--set", "collect.min_valid_fraction=0.0"]
            words += ["--set", "collect.earth_engine.max_scene_cloud_fraction=1.0"]
        return [*words, "--quiet", "--", *beam_options] if beam_options else [*words, "--quiet"]


def make_inputs(folder: Path) -> tuple[Path, Path, Path]:
    """Return catalog, model and places, which are made in `folder`."""
    from tests.data.networks import make_segmenter
    from tests.data.scenes import make_places

    catalog = simulate(
        SimulateConfig(num_places=4, num_dates=2, size_px=320, seed=5), folder / "scenes"
    )
    model = folder / "flood"
    # A folder that is kept has it.
    if not model.exists():
        make_segmenter.publish(model / "1", {"s1": S1_DEFAULT_BANDS})
    places = make_places.make_places(catalog, folder / "places.geojson", NUM_PLACES, 64)
    return catalog, model, places


def digests(verb: str, output: Path) -> dict[str, str]:
    """Return the hash of every file that a job leaves for others to read."""
    below = output / "span-1" / "version-1" if verb.startswith("build") else output
    files = [path for path in below.rglob("*") if path.is_file()]
    if verb == "fetch":
        # The ledger tells who did what, and when.
        files = [path for path in files if path.suffix == ".tif" or path.name == "items.ndjson"]
    else:
        # The lock of a folder may stay, also after the local runner.
        files = [path for path in files if path.name != ".predicting.lock"]
    return {
        str(path.relative_to(below)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def compare(verb: str, output: Path, expected: Path) -> int:
    """Return the number of files that a job left, all with the bytes of `expected`.

    Raises:
        DifferenceError: one is missing, additional, or another.
    """
    found, wanted = digests(verb, output), digests(verb, expected)
    if not wanted:
        raise DifferenceError(f"{verb}: {expected} holds no file")
    if found != wanted:
        names = sorted(
            name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
        )
        raise DifferenceError(f"{verb}: {len(names)} files differ, the first is {names[0]}")
    return len(found)


@dataclass(kw_only=True)
class Peaks:
    """Largest resident memory of one process, in MB, by program.

    Attributes:
        by_program: "java" or "python" -> MB.
        total: most that all processes took together.
    """

    by_program: dict[str, int] = field(default_factory=dict)
    total: int = 0

    def look(self, groups: set[int]) -> None:
        """Add what the processes of some process groups take now."""
        total = 0
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) not in groups:
                    continue
                size = process.memory_info().rss >> 20
                name = "java" if process.name() == "java" else "python"
            except (psutil.Error, ProcessLookupError):
                continue
            self.by_program[name] = max(self.by_program.get(name, 0), size)
            total += size
        self.total = max(self.total, total)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended.

    Attributes:
        exit_code: of the process; negative = the signal.
        seconds: duration.
        cpu_seconds: of the command, its job server and the cluster.
        said: standard error.
        peaks: memory of the command and of the cluster.
        group: process group of the command.
    """

    exit_code: int
    seconds: float
    cpu_seconds: float
    said: str
    peaks: Peaks
    group: int

    def check(self) -> Ended:
        """Return the same of a command that did its work.

        Raises:
            RuntimeError: it did not.
        """
        if self.exit_code:
            raise RuntimeError(f"exit code {self.exit_code}: {self.said.strip()[-2000:]}")
        return self


def run(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str],
    groups: Sequence[int] = (),
    meanwhile: Callable[[int], bool] | None = None,
) -> Ended:
    """Run a command to its end.

    Args:
        command: words.
        log: file of its standard error.
        environment: variables beside those of this process.
        groups: process groups of a cluster, for its memory.
        meanwhile: called with the process id until it returns True.

    Raises:
        RuntimeError: the command ended before `meanwhile` was done, takes too long, or
            left a process.
    """
    begun, peaks, is_done = time.monotonic(), Peaks(), meanwhile is None
    cpu_before = _cpu_seconds(groups)
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    next_look = begun
    try:
        while process.poll() is None:
            if not is_done and meanwhile is not None:
                is_done = meanwhile(process.pid)
            now = time.monotonic()
            if now >= next_look:
                peaks.look({process.pid, *groups})
                next_look = now + _MEMORY_SECONDS
            if now - begun > _TIMEOUT_SECONDS:
                raise RuntimeError(f"{command[5]} takes more than {_TIMEOUT_SECONDS:g} s: {log}")
            time.sleep(_LOOK_SECONDS if is_done else _LOOK_SECONDS / 10)
    except BaseException:
        kill_group(process.pid)
        raise
    ended = Ended(
        exit_code=process.wait(),
        seconds=time.monotonic() - begun,
        cpu_seconds=_cpu_seconds(groups) - cpu_before,
        said=log.read_text(errors="replace"),
        peaks=peaks,
        group=process.pid,
    )
    if ended.exit_code >= 0:
        # A driver that was not killed ends its job server.
        check_ended({process.pid})
    if not is_done:
        raise RuntimeError(f"{command[5]} ended too early: {ended.said[-2000:]}")
    return ended


def _cpu_seconds(groups: Sequence[int]) -> float:
    """Return the CPU time of a cluster, and of all commands that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) in groups:
                # The four times are those of the process and of its ended children.
                total += sum(process.cpu_times()[:4])
        except (psutil.Error, ProcessLookupError):
            continue
    return total


def kill_group(group: int) -> None:
    """Kill what a command left, such as the job server of a driver that was killed."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def writers(output: Path, pattern: str, num_finished: int = 0) -> list[int]:
    """Return the processes that are writing a file of a build at this moment.

    Args:
        output: folder of the spans.
        pattern: of the names of the files, such as `*.data`.
        num_finished: return none until so many tasks of the spool are finished.
    """
    building = [path for path in (output / "span-1").glob(".*") if path.is_dir()]
    found = []
    for folder in building:
        if len(list(folder.glob("spool/*.index"))) < num_finished:
            continue
        for path in folder.glob(f"*/.{pattern}{PARTIAL_MARK}*"):
            # See `files.partial_path`: host, process, thread, random.
            found.append(int(path.name.rsplit("-", 3)[1]))
    return found
