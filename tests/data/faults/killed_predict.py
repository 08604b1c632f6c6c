"""Make maps in processes that are killed with -9 at random moments.

Run as a program it imports TensorFlow and Beam once. Each child is a fork of it that
has computed nothing yet, so ten kills cost no ten imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

WORK_DIR = ".predicting"
TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class State:
    """The files of a run at one moment.

    Attributes:
        num_parts: finished parts of maps whose files are not written yet.
        num_maps: finished maps.
        num_written: maps whose files are written.
        writing: folders of files that are being written, or were at a kill.
    """

    num_parts: int
    num_maps: int
    num_written: int
    writing: frozenset[str]


def look(output: Path) -> State:
    """Return the state of a run."""
    return State(
        num_parts=len(list(output.glob(f"{WORK_DIR}/*/part-*.tif"))),
        num_maps=len(list(output.glob("*/item.json"))),
        num_written=len(list(output.glob(f"{WORK_DIR}/*/written"))),
        writing=frozenset(map(str, output.glob(f"{WORK_DIR}/*/files-*"))),
    )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When to kill: at a number of parts, or while files are written after others."""

    num_parts: int = 0
    num_written: int = 0
    is_writing: bool = False
    pause_seconds: float = 0.0

    def is_there(self, now: State, begin: State) -> bool:
        """Return whether it is time, in a run that began with another state."""
        if self.is_writing:
            return now.num_written >= self.num_written and bool(now.writing - begin.writing)
        return now.num_parts >= self.num_parts


def moments(seed: int, *, num_parts: int, num_maps: int, num_kills: int = 10) -> Iterator[Moment]:
    """Yield random moments in their order: in the last three, files are written."""
    rng = random.Random(seed)
    for number in sorted(rng.sample(range(num_parts), num_kills - 3)):
        yield Moment(num_parts=number, pause_seconds=rng.uniform(0.0, 0.05))
    for number in sorted(rng.sample(range(num_maps), 3)):
        yield Moment(num_written=number, is_writing=True, pause_seconds=rng.uniform(0.0, 0.1))


def kill_at(moment: Moment, process: int, output: Path, *, has_ended: Callable[[], bool]) -> None:
    """Kill a process and its group with -9 at a moment.

    Raises:
        RuntimeError: it ended before, or nothing happens.
    """
    begin = look(output)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not moment.is_there(look(output), begin):
        if time.monotonic() > deadline or has_ended():
            raise RuntimeError(f"ended or stopped before {moment}: {look(output)}")
        time.sleep(0.001)
    time.sleep(moment.pause_seconds)
    os.killpg(process, signal.SIGKILL)


def main(model: str, listed: str, output: str, settings: str, seed: str) -> None:
    """Make maps, be killed at ten moments, and make the rest.

    The state after each kill and at the end is printed as JSON.

    Args:
        model: folder of the segmenter.
        listed: catalog; each line is a scene of the model.
        output: folder of the maps.
        settings: of `predict`, as JSON.
        seed: of the moments.
    """
    sys.path.insert(0, str(Path(__file__).parents[3]))
    from beam_jobs import startup

    startup.prepare()
    from beam_jobs.contracts.settings import from_dict
    from beam_jobs.predict import driver, segmenters
    from beam_jobs.predict.config import PredictConfig

    config = from_dict(PredictConfig, json.loads(settings))
    num_maps = len(Path(listed).read_text().splitlines())
    # Each scene has nine parts.
    kills = moments(int(seed), num_parts=9 * num_maps, num_maps=num_maps)
    states = []
    for moment in [*kills, None]:
        child = os.fork()
        if not child:
            os.setsid()
            driver.predict(config, segmenters.find(model), [listed], output)
            os._exit(0)
        if moment is not None:
            kill_at(
                moment,
                child,
                Path(output),
                has_ended=lambda child=child: os.waitpid(child, os.WNOHANG)[0] != 0,
            )
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        now = look(Path(output))
        states.append([code, now.num_parts, now.num_maps, len(now.writing)])
    print(json.dumps(states))


if __name__ == "__main__":
    main(*sys.argv[1:])
