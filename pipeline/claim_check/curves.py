"""The picture of a claim check: mean IoU over the share of the labels, one line per arm, one panel per task and inputs.

Claim document -> PNG and SVG. Called by `claim.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from beam_jobs.contracts.locations import Location, staged

COLOURS = {
    "multimodal": "#1b6ca8",
    "multimodal_intra": "#6aaed6",
    "simclr": "#d1495b",
    "shuffled": "#b8b8b8",
    "random": "#8a8a8a",
    "scratch": "#edae49",
}


def draw_curves(claim: Mapping[str, Any], folder: Location) -> tuple[str, ...]:
    """Writes `curves.png` and `curves.svg` into `folder` and returns their names."""
    panels: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for cell in claim["cells"]:
        panels.setdefault((cell["task"], cell["inputs"], cell["regime"]), []).append(cell)
    figure = Figure(figsize=(4.8 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=False)[0]
    for axis, ((task, inputs, regime), cells) in zip(axes, panels.items(), strict=True):
        _draw_panel(axis, sorted(cells, key=lambda cell: cell["fraction"]))
        axis.set_title(f"{task}, {inputs}, {regime}")
    axes[0].set_ylabel("mean IoU, test split")
    axes[-1].legend(frameon=False)
    names = []
    for suffix in ("png", "svg"):
        with staged(folder / f"curves.{suffix}") as file:
            figure.savefig(str(file), format=suffix, dpi=120)
        names.append(f"curves.{suffix}")
    return tuple(names)


def _draw_panel(axis: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    """Lines are means over seeds, bands reach from the worst to the best seed."""
    fractions = [100 * cell["fraction"] for cell in cells]
    for arm, colour in COLOURS.items():
        if arm not in cells[0]["arms"]:
            continue
        seeds = [cell["arms"][arm]["mean_iou_by_seed"] for cell in cells]
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
