"""Months of simulated scenes, and a run that retrains on them as a schedule would.

All months are of one simulated export with several dates for each place. A month begins
when its scenes get into the catalog that the run reads. Both drills use this module.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy.typing as npt
import rasterio

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts import published
from beam_jobs.simulation.simulate import simulate

_REPOSITORY = Path(__file__).parents[2]
_STAGE_DONE = re.compile(r"^✓ (?P<name>.+) \((?P<seconds>[\d.]+) s\)")
Constellation = Literal["sentinel-1", "sentinel-2"]
CONSTELLATIONS: tuple[Constellation, ...] = get_args(Constellation)
Item = dict[str, Any]
Pixels = npt.NDArray[Any]


class Months:
    """The scenes of all months, as STAC items in time order.

    Attributes:
        catalog: file with the scenes of the months that have begun.
    """

    def __init__(self, folder: Path, config: SimulateConfig) -> None:
        """Simulate the scenes; those that `folder` holds already are kept."""
        self.catalog = folder / "months.ndjson"
        exported = simulate(config, folder)
        items = [json.loads(line) for line in exported.read_text().splitlines()]
        self._months = _by_month(items, config.num_dates)

    def begin(self, month: int) -> None:
        """Write the catalog: the scenes of the months 1 to `month`."""
        items = [item for one in self._months[:month] for item in one]
        self.catalog.write_text("".join(f"{json.dumps(item)}\n" for item in items))
        print(f"month {month}: {len(items)} scenes in {self.catalog}", flush=True)

    def scenes(self, month: int, constellation: Constellation) -> list[Item]:
        """Return the items of a month, from 1. Changes of them reach the next catalog."""
        return [
            item
            for item in self._months[month - 1]
            if item["properties"]["constellation"] == constellation
        ]

    def leave_out(self, month: int, is_out: Callable[[Item], bool]) -> None:
        """Remove scenes from a month."""
        self._months[month - 1] = [item for item in self._months[month - 1] if not is_out(item)]

    def read(self, item: Item, asset: str = "data") -> Pixels:
        """Return the pixels [C, H, W] of an item's asset."""
        with rasterio.open(self._path(item, asset)) as raster:
            return raster.read()

    def write(self, item: Item, pixels: Pixels, asset: str = "data") -> None:
        """Replace the pixels [C, H, W] of an item's asset."""
        with rasterio.open(self._path(item, asset), "r+") as raster:
            raster.write(pixels)

    def _path(self, item: Item, asset: str) -> Path:
        return self.catalog.parent / item["assets"][asset]["href"]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that ended.

    Attributes:
        exit_code: negative = the number of the signal that killed it.
        seconds: how long it took.
        stages: (name, seconds) of each stage that it finished.
        errors: lines that it printed about errors.
    """

    exit_code: int
    seconds: float
    stages: tuple[tuple[str, float], ...]
    errors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When to kill: so many seconds after a stage of this name has ended."""

    after: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DrilledRun:
    """A run of a shipped config in a folder of the drill.

    Attributes:
        root: folder of the run.
        catalog: the scenes that it reads.
        settings: `--set` of each command.
        faults: what was not as it must be.
    """

    root: Path
    catalog: Path
    settings: tuple[str, ...]
    faults: list[str] = field(default_factory=list)

    def start(
        self,
        verb: Literal["run", "retrain"],
        settings: Sequence[str] = (),
        kill: Kill | None = None,
    ) -> Ended:
        """Run a verb in a process of its own.

        Args:
            verb: which.
            settings: further `--set`, for this command alone.
            kill: when it gets SIGKILL; None = never.
        """
        given = (
            f"root={self.root}",
            f"catalogs=[{{layout: stac, path: {self.catalog}}}]",
            *self.settings,
            *settings,
        )
        command = [
            *(sys.executable, "-m", "pipeline", verb, "--config", "smoke"),
            *(item for setting in given for item in ("--set", setting)),
        ]
        began = time.monotonic()
        stages: list[tuple[str, float]] = []
        errors: list[str] = []
        with _process(command) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("error: "):
                    errors.append(line.strip())
                found = _STAGE_DONE.match(line)
                if not found:
                    continue
                stages.append((found["name"], float(found["seconds"])))
                if kill is not None and found["name"] == kill.after:
                    time.sleep(kill.seconds)
                    os.killpg(process.pid, signal.SIGKILL)
        ended = Ended(
            exit_code=process.wait(),
            seconds=time.monotonic() - began,
            stages=tuple(stages),
            errors=tuple(errors),
        )
        print(f"  {verb}: exit code {ended.exit_code} {' '.join(errors)}", flush=True)
        return ended

    def labels(self) -> dict[str, int]:
        """Return model -> version in service."""
        found = {path.name: published.in_service(path) for path in self._models()}
        return {name: int(version.name) for name, version in found.items() if version}

    def versions(self) -> dict[str, list[int]]:
        """Return model -> numbers of its published versions, in service or not."""
        return {
            path.name: [int(version.name) for version in published.versions(path)]
            for path in self._models()
        }

    def history(self) -> tuple[dict[str, Any], str]:
        """Return the history as JSON, and its page."""
        command = [sys.executable, "-m", "pipeline", "history", "--run", str(self.root), "--json"]
        done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=True)
        return json.loads(done.stdout), (self.root / "report" / "history.html").read_text()

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a fault if two values differ."""
        if found != wanted:
            self.faults.append(f"{what}: {found!r}, not {wanted!r}")
            print(f"  FAULT {self.faults[-1]}", flush=True)

    def _models(self) -> list[Path]:
        return sorted(path for path in (self.root / "serving").iterdir() if path.is_dir())


def _by_month(items: Sequence[Item], num_months: int) -> list[list[Item]]:
    """Return the items of each month: of each place and sensor, the next by time."""
    months: list[list[Item]] = [[] for _ in range(num_months)]
    series: dict[tuple[str, str], list[Item]] = {}
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
