"""Retrain for three months as a schedule would, and look at what the history says.

`make drill` runs it. Month 1 publishes the first models. A second attempt in the same
month finds nothing new. Month 2 brings scenes whose reflectance was divided by 10, and
is refused. Nobody repairs it. In month 3 the process gets SIGKILL in a component drawn
at random, and is started again. It must train on months 1 and 3.

Then scenes of a fourth month come, and a threshold that no model reaches refuses the
flood model. At the next attempt no scene is new, but that month drifted from the data
of the model in service: drift alone must start a training, from the encoder that was
published meanwhile. It must not start another one. At the end the history must agree
with the exit codes and with the labels.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts.errors import ExitCode
from tests.drills.months import DrilledRun, Kill, Months

_SCENES = SimulateConfig(num_places=4, num_dates=4, size_px=256)
_SETTINGS = (
    "warm_start=true",
    "spans={last: 6}",
    # In four places, a month with a swath's edge has many times the missing pixels of one
    # without, and models of four steps differ by luck. The drill is about the months.
    "drift.severity={no_data: warn}",
    "probe.tolerance=1.0",
    *(f"tasks.{task}.gate={{margin: 0.99, guards: {{}}}}" for task in (0, 1)),
    # Any difference is drift, as so few scenes cannot show a large one for sure.
    "drift.retrain_score=0.01",
)
_DIVISOR = 10
_UNREACHABLE = ("tasks.0.min_mean_iou=0.999",)
"""No flood model is as good."""


def run(folder: Path, seed: int) -> dict[str, object]:
    """Return what happened, and the faults."""
    months, rng = Months(folder / "export", _SCENES), random.Random(seed)
    drill = DrilledRun(root=folder / "run", catalog=months.catalog, settings=_SETTINGS)
    months.begin(1)
    first = drill.start("retrain")
    drill.expect("exit code of month 1", first.exit_code, ExitCode.DONE)
    in_month_1 = drill.labels()
    drill.expect("published in month 1", in_month_1, dict.fromkeys(in_month_1, 1))
    idle = drill.start("retrain")
    drill.expect("exit code without new scenes", idle.exit_code, ExitCode.NOTHING_NEW)

    for item in months.scenes(2, "sentinel-2"):
        months.write(item, months.read(item) // _DIVISOR)
    months.begin(2)
    refused = drill.start("retrain")
    drill.expect("exit code of month 2", refused.exit_code, ExitCode.REFUSED)
    in_month_2 = drill.labels()
    drill.expect("models in service after month 2", in_month_2["flood"], in_month_1["flood"])

    months.begin(3)
    kill = _draw_kill(first.stages, rng)
    print(f"  SIGKILL {kill.seconds:.1f} s after {kill.after!r}", flush=True)
    killed = drill.start("retrain", kill=kill)
    drill.expect("exit code of the killed process", killed.exit_code, -signal.SIGKILL)
    after_kill = drill.labels()
    again = drill.start("retrain")
    drill.expect("month 3 ends", again.exit_code in (ExitCode.DONE, ExitCode.REFUSED), True)

    in_month_3 = drill.labels()
    _check_spans(drill, drill.history()[0])

    months.begin(4)
    worse = drill.start("retrain", _UNREACHABLE)
    drill.expect("exit code of month 4", worse.exit_code, ExitCode.REFUSED)
    in_month_4 = drill.labels()
    drill.expect("flood after month 4", in_month_4["flood"], in_month_3["flood"])
    drill.expect("encoder after month 4", in_month_4["encoder"], in_month_3["encoder"] + 1)
    drifted = drill.start("retrain")
    drill.expect("exit code of the drift", drifted.exit_code, ExitCode.DONE)
    by_drift = drill.labels()
    drill.expect("flood after the drift", by_drift["flood"], in_month_4["flood"] + 1)
    # Not from the cache: the warm start was from the encoder of month 4.
    drill.expect("encoder after the drift", by_drift["encoder"], in_month_4["encoder"] + 1)
    no_more = drill.start("retrain")
    drill.expect("exit code after the drift", no_more.exit_code, ExitCode.NOTHING_NEW)
    same = drill.start("run")
    drill.expect("exit code of a run on the same data", same.exit_code, ExitCode.DONE)

    document, page = drill.history()
    codes = [
        *(first.exit_code, idle.exit_code, refused.exit_code, None, again.exit_code),
        *(worse.exit_code, drifted.exit_code, no_more.exit_code),
    ]
    steps = [
        *({}, in_month_1, in_month_1, in_month_2, after_kill, in_month_3),
        *(in_month_4, by_drift, drill.labels()),
    ]
    _check_history(drill, document, page, codes, steps)
    started = [one["drift"] for one in document["attempts"]]
    drill.expect("attempts by drift", started, [{}] * 6 + [{"flood": "4.1"}, {}])
    drill.expect("the page tells the drift", "by drift of flood 4.1" in page, True)
    return {
        "killed_after": kill.after,
        "exit_codes": codes,
        "outcomes": [attempt["outcome"] for attempt in document["attempts"]],
        "in_service": drill.labels(),
        "page": str(drill.root / "report" / "history.html"),
        "faults": drill.faults,
    }


def _check_spans(drill: DrilledRun, document: Mapping[str, Any]) -> None:
    """Check that month 2 is set aside, and that month 3 was trained on without it."""
    left_out = {(one["data"], one["span"]) for one in document["set_aside"]}
    read = document["runs"][-1]["spans"]
    drill.expect("spans set aside", left_out, {(name, 2) for name in read})
    drill.expect("data of month 3", read, dict.fromkeys(read, "1.1, 3.1"))
    encoders = [one["span"] for one in document["versions"] if one["model"] == "encoder"]
    drill.expect("data of the encoders", encoders[1:], ["1.1, 3.1"] * len(encoders[1:]))


def _check_history(
    drill: DrilledRun,
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
