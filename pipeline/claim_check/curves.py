"""The picture of a claim check: the score over the share of the labels.

Claim document -> PNG and SVG, with one line for each arm and one panel for each task,
inputs and regime.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from beam_jobs.contracts.locations import Location, staged
from pipeline.claim_check.config import Arm

COLOURS: dict[Arm, str] = {
    "multimodal": "#1b6ca8",
    "multimodal_intra": "#6aaed6",
    "simclr": "#d1495b",
    "shuffled": "#b8b8b8",
    "random": "#8a8a8a",
    "scratch": "#edae49",
}

_MORE_COLOURS = ("#6a4c93", "#2a9d8f", "#9c6644", "#e76f51")
"""Colours of arms with published weights."""


class _Panel(NamedTuple):
    task: str
    inputs: str
    regime: str


def draw_curves(claim: Mapping[str, Any], folder: Location) -> tuple[str, ...]:
    """Write `curves.png` and `curves.svg` into `folder` and return their names."""
    panels: dict[_Panel, list[Mapping[str, Any]]] = {}
    for cell in claim["cells"]:
        panel = _Panel(task=cell["task"], inputs=cell["inputs"], regime=cell["regime"])
        panels.setdefault(panel, []).append(cell)
    figure = Figure(figsize=(4.8 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=False)[0]
    for axis, (panel, cells) in zip(axes, panels.items(), strict=True):
        ordered = sorted(cells, key=lambda cell: cell["fraction"])
        _draw_panel(axis, ordered, claim["config"]["score"])
        axis.set_title(", ".join(panel))
    axes[0].set_ylabel(f"{claim['score']}, test split")
    axes[-1].legend(frameon=False)
    names = []
    for suffix in ("png", "svg"):
        with staged(folder / f"curves.{suffix}") as file:
            figure.savefig(str(file), format=suffix, dpi=120)
        names.append(f"curves.{suffix}")
    return tuple(names)


def _draw_panel(axis: Any, cells: Sequence[Mapping[str, Any]], score: str) -> None:
    """Draw means over seeds as lines, and worst to best seed as bands."""
    fractions = [100 * cell["fraction"] for cell in cells]
    further = itertools.cycle(_MORE_COLOURS)
    for arm in sorted(
        cells[0]["arms"],
        key=lambda arm: list(COLOURS).index(arm) if arm in COLOURS else len(COLOURS),
    ):
        colour = COLOURS.get(arm) or next(further)
        seeds = [cell["arms"][arm][f"{score}_by_seed"] for cell in cells]
        axis.plot(fractions, [sum(s) / len(s) for s in seeds], "o-", color=colour, label=arm)
        axis.fill_between(
            fractions,
            [min(s) for s in seeds],
            [max(s) for s in seeds],
            color=colour,
            alpha=0.15,
            lw=0,
        )
    axis.set_xscale("log")
    axis.set_xticks(fractions, [f"{value:g} %" for value in fractions])
    axis.set_xlabel("share of the train labels")
    axis.grid(alpha=0.3)
