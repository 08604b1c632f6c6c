"""Retrain for three months as a schedule would, and look at what the history says.

`make drill` runs it. Month 1 publishes the first models. A second attempt in the same
month finds nothing new. Month 2 brings scenes whose reflectance was divided by 10, and
is refused. Nobody repairs it. In month 3 the process gets SIGKILL in a component drawn
at random, and is started again. It must train on months 1 and 3. Then the history must
agree with the exit codes and with the labels.

All months are of one simulated export with three dates for each place, which is copied
into the folder of the run date by date.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts import published
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.simulation.simulate import simulate

_REPOSITORY = Path(__file__).parents[2]
_CONFIG = "smoke"
_NUM_MONTHS = 3
_SETTINGS = (
    "warm_start=true",
    "spans={last: 6}",
    # In four places, a month with a swath's edge has many times the missing pixels of one
    # without, and models of four steps differ by luck. The drill is about the months.
    "drift.severity={no_data: warn}",
    "probe.tolerance=1.0",
    *(f"tasks.{task}.gate={{margin: 0.99, guards: {{}}}}" for task in (0, 1)),
)
_STAGE_DONE = re.compile(r"^✓ (?P<name>.+) \((?P<seconds>[\d.]+) s\)")
_DIVISOR = 10


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that ended.

    Attributes:
        exit_code: negative = the number of the signal that killed it.
        stages: (name, seconds) of each stage that it finished.
        stderr: all that it printed there.
    """

    exit_code: int
    stages: tuple[tuple[str, float], ...]
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When to kill: so many seconds after a stage of this name has ended."""

    after: str
    seconds: float


class Drill:
    """One drill in a folder: its scenes, its run, and what was wrong."""

    def __init__(self, folder: Path) -> None:
        """Simulate the scenes of all months."""
        self.root = folder / "run"
        self._catalog = folder / "export" / "months.ndjson"
        exported = simulate(
            SimulateConfig(num_places=4, num_dates=_NUM_MONTHS, size_px=256), folder / "export"
        )
        self._months = _by_month([json.loads(line) for line in exported.read_text().splitlines()])
        self.faults: list[str] = []

    def begin_month(self, month: int) -> None:
        """Add the scenes of a month, from 1, to the catalog."""
        items = [item for one in self._months[:month] for item in one]
        self._catalog.write_text("".join(f"{json.dumps(item)}\n" for item in items))
        print(f"month {month}: {len(items)} scenes in {self._catalog}", flush=True)

    def poison(self, month: int) -> None:
        """Divide the reflectance of a month's Sentinel-2 scenes."""
        for item in self._months[month - 1]:
            if item["properties"]["constellation"] == "sentinel-2":
                path = self._catalog.parent / item["assets"]["data"]["href"]
                with rasterio.open(path, "r+") as raster:
                    raster.write(raster.read() // _DIVISOR)

    def retrain(self, kill: Kill | None = None) -> Ended:
        """Run `retrain` in a process of its own."""
        command = [
            *(sys.executable, "-m", "pipeline", "retrain", "--config", _CONFIG),
            *("--set", f"root={self.root}"),
            *("--set", f"catalogs=[{{layout: stac, path: {self._catalog}}}]"),
            *(item for setting in _SETTINGS for item in ("--set", setting)),
        ]
        lines: list[str] = []
        stages = []
        with _process(command) as process:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                found = _STAGE_DONE.match(line)
                if not found:
                    continue
                stages.append((found["name"], float(found["seconds"])))
                if kill is not None and found["name"] == kill.after:
                    time.sleep(kill.seconds)
                    os.killpg(process.pid, signal.SIGKILL)
        ended = Ended(exit_code=process.wait(), stages=tuple(stages), stderr="".join(lines))
        errors = [line.strip() for line in lines if line.startswith("error: ")]
        print(f"  exit code {ended.exit_code} {' '.join(errors)}", flush=True)
        return ended

    def labels(self) -> dict[str, int]:
        """Return model -> version in service."""
        folder = self.root / "serving"
        found = {path.name: published.in_service(path) for path in folder.iterdir()}
        return {name: int(version.name) for name, version in found.items() if version}

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a fault if two values differ."""
        if found != wanted:
            self.faults.append(f"{what}: {found!r}, not {wanted!r}")

    def history(self) -> tuple[dict[str, Any], str]:
        """Return the history as JSON, and its page."""
        command = [sys.executable, "-m", "pipeline", "history", "--run", str(self.root), "--json"]
        done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=True)
        return json.loads(done.stdout), (self.root / "report" / "history.html").read_text()


def run(folder: Path, seed: int) -> dict[str, object]:
    """Return what happened, and the faults."""
    drill, rng = Drill(folder), random.Random(seed)
    drill.begin_month(1)
    first = drill.retrain()
    drill.expect("exit code of month 1", first.exit_code, ExitCode.DONE)
    in_month_1 = drill.labels()
    drill.expect("published in month 1", in_month_1, dict.fromkeys(in_month_1, 1))
    idle = drill.retrain()
    drill.expect("exit code without new scenes", idle.exit_code, ExitCode.NOTHING_NEW)

    drill.poison(2)
    drill.begin_month(2)
    refused = drill.retrain()
    drill.expect("exit code of month 2", refused.exit_code, ExitCode.REFUSED)
    in_month_2 = drill.labels()
    drill.expect("models in service after month 2", in_month_2["flood"], in_month_1["flood"])

    drill.begin_month(3)
    kill = _draw_kill(first.stages, rng)
    print(f"  SIGKILL {kill.seconds:.1f} s after {kill.after!r}", flush=True)
    killed = drill.retrain(kill)
    drill.expect("exit code of the killed process", killed.exit_code, -signal.SIGKILL)
    after_kill = drill.labels()
    again = drill.retrain()
    drill.expect("month 3 ends", again.exit_code in (ExitCode.DONE, ExitCode.REFUSED), True)

    document, page = drill.history()
    _check_spans(drill, document)
    codes = [first.exit_code, idle.exit_code, refused.exit_code, None, again.exit_code]
    steps = [{}, in_month_1, in_month_1, in_month_2, after_kill, drill.labels()]
    _check_history(drill, document, page, codes, steps)
    return {
        "killed_after": kill.after,
        "exit_codes": codes,
        "outcomes": [attempt["outcome"] for attempt in document["attempts"]],
        "in_service": drill.labels(),
        "page": str(drill.root / "report" / "history.html"),
        "faults": drill.faults,
    }


def _check_spans(drill: Drill, document: Mapping[str, Any]) -> None:
    """Check that month 2 is set aside, and that month 3 was trained on without it."""
    left_out = {(one["data"], one["span"]) for one in document["set_aside"]}
    read = document["runs"][-1]["spans"]
    drill.expect("spans set aside", left_out, {(name, 2) for name in read})
    drill.expect("data of month 3", read, dict.fromkeys(read, "1.1, 3.1"))
    encoders = [one["span"] for one in document["versions"] if one["model"] == "encoder"]
    drill.expect("data of the encoders", encoders[1:], ["1.1, 3.1"] * len(encoders[1:]))


def _check_history(
    drill: Drill,
    document: Mapping[str, Any],
    page: str,
    codes: Sequence[int | None],
    steps: Sequence[Mapping[str, int]],
) -> None:
    """Compare the history with exit codes, and with the labels between the attempts."""
    attempts = document["attempts"]
    drill.expect("exit codes in the history", [one["exit_code"] for one in attempts], codes)
    for number, (attempt, before, after) in enumerate(
        zip(attempts, steps, steps[1:], strict=False), start=1
    ):
        new = dict(after.items() - before.items())
        if attempt["exit_code"] is None:
            drill.expect("end of the killed attempt", attempt["ended_at"], "")
        else:
            drill.expect(f"published by attempt {number}", attempt["published"], new)
        if attempt["exit_code"] == ExitCode.REFUSED:
            drill.expect(f"attempt {number} has reasons", bool(attempt["reasons"]), True)
        drill.expect(f"attempt {number} on the page", attempt["started_at"] in page, True)
    drill.expect("the page tells the kill", ">killed<" in page, True)
    serves_now = {
        one["model"]: one["number"]
        for one in document["versions"]
        if any(not until for _, until in one["served"])
    }
    drill.expect("in service by the history", serves_now, drill.labels())


def _draw_kill(stages: Sequence[tuple[str, float]], rng: random.Random) -> Kill:
    """Return a moment within a component, drawn at random.

    Args:
        stages: (name, seconds) of a whole run; components come after the import of TFX.
        rng: draws.
    """
    names = [name for name, _ in stages]
    index = rng.randrange(names.index("import TFX") + 1, len(stages))
    return Kill(after=names[index - 1], seconds=rng.uniform(0.0, 0.8) * stages[index][1])


def _by_month(items: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the items of each month: of each place and sensor, the next by time."""
    months: list[list[dict[str, Any]]] = [[] for _ in range(_NUM_MONTHS)]
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in items:
        properties = item["properties"]
        key = (properties["terrapair:place"], properties["constellation"])
        series.setdefault(key, []).append(item)
    for of_one in series.values():
        ordered = sorted(of_one, key=lambda item: item["properties"]["datetime"])
        for month, item in zip(months, ordered, strict=True):
            month.append(item)
    return months


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    # A session of its own: a kill reaches its children, too.
    with subprocess.Popen(
        command,
        cwd=_REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        yield process


def main() -> int:
    """Run the drill; return 1 if the history is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="new folder; removed at the end without this")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10_000, help="of the kill")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    folder = arguments.output or Path(tempfile.mkdtemp(prefix="terrapair-drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = run(folder.resolve(), arguments.seed)
    finally:
        if arguments.output is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2, default=str))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
