"""Poison a run in service in each known way, and look at what stops the poison.

`make drill` runs it. Month 1 publishes the first flood model. Month 2 is equally good,
and its model is published only if the gate says so. From this state, month 3 comes
again and again, each time with another fault: in the scenes, in the labels, in the
settings. None of its models may reach service. At last month 3 comes without a fault
and a better model, which is published.

The run has no pretraining: a segmenter of 40 steps from new weights is good enough to
be compared, so the gate judges by its default margins. Only the poison of one event has
a wider margin for the whole test, so that its guard must refuse it.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from beam_jobs.config import SimulateConfig
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.labels import IGNORE
from tests.drills.months import CONSTELLATIONS, DrilledRun, Ended, Item, Months, Pixels

_SCENES = SimulateConfig(num_places=20, num_dates=3, size_px=256, nuisance="augmentable")
_TASK = "flood"
_BETTER_NAME = "a better model"
_BETTER = (
    "tasks.0.segment.num_steps=160",
    "tasks.0.segment.tune_threshold=true",
    # One month alone teaches too little of the flooded forest, and the gate refuses that.
    "spans={last: 6}",
)
_SETTINGS = (
    "pretrain=null",
    # Scenes differ in brightness, so a model that did not see that in training is good on
    # one month by luck.
    f"tasks=[{{use: {_TASK}, quality: null, min_mean_iou: 0.001, segment: {{regime: scratch, "
    "num_steps: 40, global_batch_size: 16, encoder: {backbone: small}, tune_threshold: false, "
    "augment: {photometry: {blur_probability: 0.0, s1: {max_gain_db: 4.0, "
    "max_polarization_gain_db: 2.0, speckle_probability: 0.0}}}}}]",
)
_FOREST = ("place-0001", "place-0008", "place-0010", "place-0013")
"""Places of the event in which flooded trees stand in the water."""
_FLOODED_TREES_DB = 18.0
"""By how much they are brighter than open water, dB.

The wave returns from water and trunk (double bounce), so flooded trees are as bright as
a town. A model that never saw them takes them for dry.
"""
_WATER = 0
"""Label of water in the simulator's scenes: that of Dynamic World."""
_MONTH = 3
"""The month that is poisoned."""

Step = Literal["build", "drift", "gate"]
_RULE = re.compile(r"of the rule (\w+)")
_FIGURES = re.compile(r"all figures are in (\S+)")


@dataclass(frozen=True, kw_only=True)
class Poison:
    """One fault, and what must stop it.

    Attributes:
        name: in the table.
        stopped_by: the step that must refuse it.
        rule: one that must be broken: a reason of the build, a rule of the drift check,
            a comparison of the gate, or words of its reason.
        exit_code: of `retrain`.
        spoil: changes the scenes of month 3.
        settings: that month 3 is trained with.
    """

    name: str
    stopped_by: Step
    rule: str
    exit_code: ExitCode = ExitCode.REFUSED
    spoil: Callable[[Months], None] = lambda _: None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table at the end."""

    name: str
    stopped_by: str
    rules: str
    exit_code: int
    seconds: float


def _radar(change: Callable[[Pixels], Pixels], **declared: object) -> Callable[[Months], None]:
    """Return a fault of Sentinel-1: its pixels, and what its data asset declares."""

    def spoil(months: Months) -> None:
        for item in months.scenes(_MONTH, "sentinel-1"):
            months.write(item, change(months.read(item)))
            item["assets"]["data"].update(declared)

    return spoil


def _swap_and_declare(months: Months) -> None:
    _radar(lambda pixels: pixels[::-1])(months)
    for item in months.scenes(_MONTH, "sentinel-1"):
        item["properties"]["terrapair:polarizations_checked"] = True


def _permute_labels(months: Months) -> None:
    """Give the labelled pixels of each scene the same labels in another order."""
    rng = np.random.default_rng(0)
    for item in months.scenes(_MONTH, "sentinel-1"):
        labels = months.read(item, "label")
        labels[labels != IGNORE] = rng.permutation(labels[labels != IGNORE])
        months.write(item, labels, "label")


def _lose_lines(months: Months) -> None:
    """Lose rows of all scenes until five times the pixels are missing."""
    rng = np.random.default_rng(0)
    for constellation, missing in zip(CONSTELLATIONS, (np.nan, 0), strict=True):
        scenes = months.scenes(_MONTH, constellation)
        pixels = [months.read(item) for item in scenes]
        share = float(np.mean([_is_missing(one).mean() for one in pixels]))
        for item, one in zip(scenes, pixels, strict=True):
            is_lost = rng.random(one.shape[1]) < 4.0 * share / (1.0 - share)
            one[:, is_lost] = missing
            months.write(item, one)


def _is_missing(pixels: Pixels) -> Pixels:
    return np.isnan(pixels[0]) if pixels.dtype == np.float32 else pixels[0] == 0


def _divide_reflectance(months: Months) -> None:
    for item in months.scenes(_MONTH, "sentinel-2"):
        months.write(item, months.read(item) // 10)


POISONS = (
    Poison(
        name="permuted labels",
        stopped_by="gate",
        rule="all",
        spoil=_permute_labels,
    ),
    Poison(
        name="one training step",
        stopped_by="gate",
        rule="all",
        settings=("tasks.0.segment.num_steps=1",),
    ),
    Poison(
        name="VV and VH swapped",
        stopped_by="build",
        rule="bands seem swapped",
        exit_code=ExitCode.BAD_DATA,
        spoil=_radar(lambda pixels: pixels[::-1]),
    ),
    Poison(
        name="VV and VH swapped, declared as checked",
        stopped_by="drift",
        rule="polarizations",
        spoil=_swap_and_declare,
    ),
    Poison(
        name="decibels doubled",
        stopped_by="build",
        rule="as if all decibels were doubled",
        exit_code=ExitCode.BAD_DATA,
        spoil=_radar(lambda pixels: pixels * 2.0),
    ),
    Poison(
        name="decibels doubled, declared as dB",
        stopped_by="drift",
        rule="s1_spread",
        spoil=_radar(lambda pixels: pixels * 2.0, **{"terrapair:unit": "dB", "nodata": "nan"}),
    ),
    Poison(
        name="decibels declared as power",
        stopped_by="build",
        rule="are negative, as decibels are",
        exit_code=ExitCode.BAD_DATA,
        spoil=_radar(lambda pixels: pixels, **{"terrapair:unit": "power", "nodata": "nan"}),
    ),
    Poison(
        name="five times the missing pixels",
        stopped_by="drift",
        rule="no_data",
        spoil=_lose_lines,
    ),
    Poison(
        name="reflectance divided by 10",
        stopped_by="drift",
        rule="s2_spread",
        spoil=_divide_reflectance,
    ),
    Poison(
        name="good on average, but never saw one event",
        stopped_by="gate",
        rule="event=forest",
        spoil=lambda months: months.leave_out(
            _MONTH, lambda item: item["properties"]["terrapair:event"] == "forest"
        ),
        # It learns of month 3 alone. Only the guards judge: months differ by more than
        # the margin.
        settings=(
            "tasks.0.segment.num_steps=240",
            "tasks.0.segment.loss.class_weights={}",
            "tasks.0.segment.tune_threshold=true",
            "tasks.0.gate.margin=0.2",
        ),
    ),
    Poison(
        name="other bands than in service",
        stopped_by="drift",
        rule="has the bands of s1 VV, VH, the new data VV",
        settings=("pairs.patch.s1_bands=[VV]",),
    ),
    Poison(
        name="other bands than in service, span accepted",
        stopped_by="gate",
        rule="has the bands",
        settings=("pairs.patch.s1_bands=[VV]", f"drift.accept_spans=[{_MONTH}]"),
    ),
)


class State:
    """The folder of scenes and run, and a copy of it that each poison starts from.

    ML Metadata remembers absolute paths, so the copy is brought back to the place where
    it was made.
    """

    def __init__(self, folder: Path) -> None:
        """Make the scenes, or go on from the copy that an earlier drill left in `folder`."""
        self._now, self._kept = folder / "now", folder / "kept"
        self.is_kept = self._kept.exists()
        if self.is_kept:
            self.restore()
        self._months = Months(self._now / "export", _SCENES)
        _name_events(self._months)
        if not self.is_kept:
            _flood_trees(self._months)
        self.run = DrilledRun(
            root=self._now / "run", catalog=self._months.catalog, settings=_SETTINGS
        )

    @property
    def months(self) -> Months:
        """The scenes; changes of their items end with the next `restore`."""
        return copy.deepcopy(self._months)

    def keep(self) -> None:
        """Copy all files."""
        # A copy that was cut short must not be taken for one.
        copying = self._kept.with_name("copying")
        shutil.copytree(self._now, copying)
        copying.rename(self._kept)

    def restore(self) -> None:
        """Bring the files back."""
        shutil.rmtree(self._now, ignore_errors=True)
        shutil.copytree(self._kept, self._now)


def _name_events(months: Months) -> None:
    for month in range(1, _SCENES.num_dates + 1):
        for constellation in CONSTELLATIONS:
            for item in months.scenes(month, constellation):
                item["properties"]["terrapair:event"] = _event(item)


def _flood_trees(months: Months) -> None:
    """Put flooded trees into the water of one event, in all months."""
    for month in range(1, _SCENES.num_dates + 1):
        for item in months.scenes(month, "sentinel-1"):
            if _event(item) == "forest":
                pixels, labels = months.read(item), months.read(item, "label")[0]
                pixels[:, labels == _WATER] += _FLOODED_TREES_DB
                months.write(item, pixels)


def _event(item: Item) -> str:
    place = item["properties"]["terrapair:place"]
    if place in _FOREST:
        return "forest"
    return "delta" if place < f"place-{_SCENES.num_places // 2:04d}" else "valley"


def bring_into_service(state: State) -> list[Row]:
    """Publish month 1, and month 2 if its gate says so."""
    run, months = state.run, state.months
    months.begin(1)
    first = run.start("retrain")
    run.expect("exit code of month 1", first.exit_code, ExitCode.DONE)
    run.expect("in service after month 1", run.labels(), {_TASK: 1})
    months.begin(2)
    second = run.start("retrain")
    gate = _report(run)["gates"][_TASK]
    is_blessed = gate["outcome"] == "blessed"
    wanted = ExitCode.DONE if is_blessed else ExitCode.REFUSED
    run.expect("exit code of month 2", second.exit_code, wanted)
    run.expect("in service after month 2", run.labels(), {_TASK: 2 if is_blessed else 1})
    print(f"  month 2 is {gate['outcome']}: {gate['reasons'][0]}", flush=True)
    return [
        _row("month 1: the first model", "published", "threshold", first),
        _row(
            "month 2: an equally good one",
            "published" if is_blessed else "gate",
            ", ".join(_failed(gate)),
            second,
        ),
    ]


def give(poison: Poison, state: State) -> Row:
    """Let a poison come in month 3; note a fault if it is not stopped as it must be."""
    print(poison.name, flush=True)
    run, months = state.run, state.months
    before = run.labels(), run.versions(), _label_file(run)
    poison.spoil(months)
    months.begin(_MONTH)
    ended = run.start("retrain", poison.settings)
    document, page = run.history()
    attempt = document["attempts"][-1]
    by, rules = _stopped_by(run, document, attempt)

    def expect(what: str, found: object, wanted: object) -> None:
        run.expect(f"{poison.name}: {what}", found, wanted)

    expect("exit code", ended.exit_code, poison.exit_code)
    expect("stopped by", by, poison.stopped_by)
    reasons = " ".join(attempt["reasons"])
    expect(
        f"{poison.rule!r} among the reasons {rules} {reasons}",
        poison.rule in rules or poison.rule in reasons,
        True,
    )
    expect("labels, versions", (run.labels(), run.versions(), _label_file(run)), before)
    expect("exit code in the history", attempt["exit_code"], poison.exit_code)
    expect("published by the history", attempt["published"], {})
    expect("in service by the history", _serves_now(document), before[0])
    is_told = [attempt["started_at"] in page, *(escape(one) in page for one in attempt["reasons"])]
    expect("the page tells it", all(is_told) and len(is_told) > 1, True)
    if poison.rule.startswith("event="):
        whole = _report(run)["gates"][_TASK]["comparisons"][0]
        expect("the average passes", whole["passed"], True)
    return _row(poison.name, by, ", ".join(rules) or poison.rule, ended)


def give_better(state: State) -> Row:
    """Let month 3 come without a fault, and be learned better; it must be published."""
    print(_BETTER_NAME, flush=True)
    run, months = state.run, state.months
    newest = max(run.versions()[_TASK])
    months.begin(_MONTH)
    ended = run.start("retrain", _BETTER)
    run.expect("exit code of the better model", ended.exit_code, ExitCode.DONE)
    run.expect("in service at the end", run.labels(), {_TASK: newest + 1})
    document, page = run.history()
    attempt = document["attempts"][-1]
    run.expect("published by the history", attempt["published"], {_TASK: newest + 1})
    run.expect("in service by the history", _serves_now(document), {_TASK: newest + 1})
    run.expect("the page tells it", attempt["started_at"] in page, True)
    return _row(f"month 3: {_BETTER_NAME}", "published", "", ended)


def _stopped_by(
    run: DrilledRun, document: Mapping[str, Any], attempt: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Return the step that ended an attempt, and the rules that it names."""
    reasons = " ".join(attempt["reasons"])
    if attempt["exit_code"] == ExitCode.BAD_DATA:
        return "build", []
    if attempt["outcome"] != "refused":
        return f"nothing: {attempt['outcome']}", []
    failed = [name.partition("-")[0] for name in document["runs"][-1]["failed"]]
    if failed:
        if failed != ["DriftGate"]:
            return ", ".join(failed), []
        # The reason names the three worst; the report of the check has all.
        found = _FIGURES.search(reasons)
        refusals = json.loads(Path(found[1]).read_text())["refusals"] if found else [reasons]
        return "drift", list(dict.fromkeys(_RULE.findall(" ".join(refusals))))
    return "gate", _failed(_report(run)["gates"][_TASK])


def _failed(gate: Mapping[str, Any]) -> list[str]:
    return [one["name"] for one in gate["comparisons"] if not one["passed"]]


def _report(run: DrilledRun) -> Any:
    return json.loads((run.root / "report" / "report.json").read_text())


def _label_file(run: DrilledRun) -> str:
    return (run.root / "serving" / _TASK / "labels.json").read_text()


def _serves_now(document: Mapping[str, Any]) -> dict[str, int]:
    return {
        one["model"]: one["number"]
        for one in document["versions"]
        if any(not until for _, until in one["served"])
    }


def _row(name: str, stopped_by: str, rules: str, ended: Ended) -> Row:
    return Row(
        name=name,
        stopped_by=stopped_by,
        rules=rules,
        exit_code=ended.exit_code,
        seconds=ended.seconds,
    )


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table(title="What stopped which poison", title_justify="left")
    for column in ("poison", "stopped by", "rules", "exit code", "seconds"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row.name, row.stopped_by, row.rules, str(row.exit_code), f"{row.seconds:.0f}")
    Console(width=120).print(table)


def main() -> int:
    """Run the drill; return 1 if a poison was not stopped as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--output", type=Path, help="folder to keep; a second drill in it goes on from month 2"
    )
    parser.add_argument(
        "--only", action="append", help=f"poison to give, or '{_BETTER_NAME}'; may be repeated"
    )
    arguments = parser.parse_args()
    folder = arguments.output or Path(tempfile.mkdtemp(prefix="terrapair-drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        state = State(folder.resolve())
        rows = [] if state.is_kept else bring_into_service(state)
        if not state.is_kept:
            state.keep()
        for poison in POISONS:
            if not arguments.only or poison.name in arguments.only:
                rows.append(give(poison, state))
                state.restore()
        if not arguments.only or _BETTER_NAME in arguments.only:
            rows.append(give_better(state))
    finally:
        if arguments.output is None:
            shutil.rmtree(folder, ignore_errors=True)
    show(rows)
    print(json.dumps({"faults": state.run.faults}, indent=2))
    return 1 if state.run.faults else 0


if __name__ == "__main__":
    sys.exit(main())
