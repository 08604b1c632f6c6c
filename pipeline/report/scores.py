"""Scores of a segmenter on a split: tables, a line of text, and a calibration picture.

PatchScores -> rich renderables and a PNG.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.figure import Figure
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from beam_jobs.contracts import locations
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.published import ASSETS_DIR
from models import metrics
from models.intervals import Interval
from models.scores import calibration
from models.scores.patch_scores import PatchScores
from models.scores.score_file import SCORES_NAME, read_scores
from models.scores.slices import DIMENSIONS, NOT_HELD_OUT, UNKNOWN, by_slice
from models.scores.summary import interval, summarize

MAX_SLICES = 10
"""A dimension with more slices, such as scenes, is not shown; the file has them all."""

CLASS_SCORES = {
    "mean_patch_iou": "mean patch IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
}
SLICE_SCORES = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "ece": "ECE"}
"""Score -> heading of its column."""
POSITIVE_SCORES = {"pooled_iou": "pooled IoU", "mean_patch_iou": "mean patch IoU", "f1": "F1"}
"""Score -> heading, for the second of two classes (e.g. water)."""


def number(value: float | None) -> str:
    """Return `value` with three decimals, or a dash when it could not be measured."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def read_eval_scores(saved_model: Location) -> PatchScores | None:
    """Return the eval scores in a segmenter's folder; None: version 0.1 wrote none.

    Raises:
        ValueError: the file is cut short or holds no scores.
    """
    path = saved_model / ASSETS_DIR / SCORES_NAME
    return read_scores(path) if path.exists() else None


def score_line(scores: PatchScores, split: str) -> str:
    """Return the main scores of a split as one line."""
    figures = summarize(scores)
    positive = scores.class_names[1] if len(scores.class_names) == 2 else None
    shown = {"mean IoU": "mean_iou"}
    if positive is not None:
        shown = {
            f"{positive} {text}": f"{score}/{positive}" for score, text in POSITIVE_SCORES.items()
        } | shown
    values = ", ".join(f"{text} {number(figures[score])}" for text, score in shown.items())
    return escape(f"  {split} split ({len(scores)} patches): {values}")


def score_parts(name: str, scores: PatchScores, split: str) -> Iterator[RenderableType]:
    """Yield the scores of one split: of each class, of all classes, and of slices."""
    yield _class_table(name, scores, split)
    figures = summarize(scores)
    found = interval(scores, "mean_iou")
    yield (
        f"  mean IoU {number(found.value)}{_range(found, ' (', ')')}, "
        f"calibration error {number(figures['ece'])}, {len(scores)} patches"
    )
    if scores.threshold is not None and not math.isnan(scores.threshold):
        sums = scores.probability_counts[:, 0].sum(axis=0)
        by_threshold = []
        for threshold in dict.fromkeys((scores.threshold, calibration.DEFAULT_THRESHOLD)):
            confusion = calibration.threshold_confusion(sums, threshold)
            iou = float(metrics.iou_per_class(confusion)[1])
            by_threshold.append(f"{number(iou)} at {threshold:.2f}")
        positive = escape(scores.class_names[1])
        yield (
            f"  threshold of {positive} {scores.threshold:.2f}: "
            f"pooled IoU {', '.join(by_threshold)}"
        )
    yield _slice_table(name, scores, split)


def draw_reliability(name: str, scores: PatchScores, split: str, output: Location) -> None:
    """Write the reliability curve: accuracy and share of pixels by confidence."""
    curve = calibration.reliability_curve(scores)
    figure = Figure(figsize=(4.6, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="#999999", linestyle="--", label="calibrated")
    upper.plot(curve.confidence, curve.accuracy, marker="o", color="#1f5fbf", label=name)
    upper.set(ylabel="share of pixels right", ylim=(0, 1), xlim=(0, 1))
    upper.legend(loc="upper left", frameon=False)
    ece = summarize(scores)["ece"]
    upper.set_title(f"{name}: calibration on the {split} split, error {number(ece)}", fontsize=10)
    lower.bar(curve.confidence, curve.share, width=0.03, color="#1f5fbf")
    lower.set(xlabel="probability of the likeliest class", ylabel="share of pixels", ylim=(0, 1))
    with locations.staged(output) as partial:
        figure.savefig(partial, format="png", dpi=130)


def _class_table(name: str, scores: PatchScores, split: str) -> Table:
    table = Table(
        title=f"{name}: scores on the {split} split (docs/scores.md)", title_justify="left"
    )
    table.add_column("class")
    for column in ("pooled IoU", "95% interval", *CLASS_SCORES.values()):
        table.add_column(column, justify="right")
    figures = summarize(scores)
    for class_name in scores.class_names:
        found = interval(scores, f"pooled_iou/{class_name}")
        values = (number(figures[f"{score}/{class_name}"]) for score in CLASS_SCORES)
        table.add_row(class_name, number(found.value), _range(found), *values)
    return table


def _slice_table(name: str, scores: PatchScores, split: str) -> Table:
    table = Table(title=f"{name}: slices of the {split} split", title_justify="left")
    table.add_column("slice")
    columns = dict(SLICE_SCORES)
    if len(scores.class_names) == 2:
        positive = scores.class_names[1]
        columns = {
            f"{score}/{positive}": f"{positive} {text}" for score, text in POSITIVE_SCORES.items()
        } | columns
    for column in ("patches", *columns.values()):
        table.add_column(column, justify="right")
    for dimension in DIMENSIONS:
        slices = by_slice(scores, dimension)
        # A dimension that no record names has one slice with all patches: skip it.
        is_known = set(slices) - {f"{dimension}={value}" for value in (UNKNOWN, NOT_HELD_OUT)}
        for value, part in slices.items() if is_known and len(slices) <= MAX_SLICES else ():
            figures = summarize(part)
            table.add_row(
                escape(value), str(len(part)), *(number(figures[score]) for score in columns)
            )
    return table


def _range(found: Interval, before: str = "", after: str = "") -> str:
    return (
        ""
        if math.isnan(found.low)
        else f"{before}{number(found.low)} to {number(found.high)}{after}"
    )
