"""The HTML page of a cross-validation, and its table of folds on the terminal.

Document of a cross-validation -> one HTML file that needs no other file, and rich
renderables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from rich.console import RenderableType
from rich.markup import escape as escape_markup
from rich.table import Table
from rich.text import Text

from models.scores.patch_scores import PatchScores
from pipeline.html_page import page_head
from pipeline.report.scores import CLASS_SCORES, number, score_parts

_FOLD_HEADINGS = (
    "fold",
    "train",
    "eval",
    "test patches",
    "test units",
    "threshold",
    "mean IoU",
    "95% interval",
)


def render_page(document: Mapping[str, Any]) -> str:
    """Return the HTML text."""
    return "\n".join(_parts(document)) + "\n"


def sentence(task: str, entry: Mapping[str, Any]) -> str:
    """Return the pooled score of a task as text."""
    pooled = entry["pooled"]
    interval = _interval(pooled["intervals"]["mean_iou"])
    return (
        f"{task}: mean IoU {number(pooled['scores']['mean_iou'])}"
        + (f", 95% interval {interval}" if interval else ", no interval")
        + f": {pooled['num_patches']} test patches in {pooled['num_units']} {pooled['unit']}s, "
        f"pooled over {len(entry['folds'])} folds."
    )


def terminal_parts(
    document: Mapping[str, Any], pooled: Mapping[str, PatchScores]
) -> Iterator[RenderableType]:
    """Yield what the terminal shows of each task."""
    for task, entry in document["tasks"].items():
        for part in score_parts(task, pooled[task], "pooled test"):
            # These lines are marked up, and a session prints text as it is.
            yield Text.from_markup(part) if isinstance(part, str) else part
        yield _fold_table(task, entry["folds"])
        yield entry["encoder"]["saw"]
        yield from entry["notes"]
        yield sentence(task, entry)


def _fold_table(task: str, folds: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title=f"{escape_markup(task)}: folds, each with its own model", title_justify="left"
    )
    for heading in _FOLD_HEADINGS:
        table.add_column(heading, justify="right")
    for fold in folds:
        table.add_row(*_fold_cells(fold))
    return table


def _parts(document: Mapping[str, Any]) -> Iterator[str]:
    yield page_head(f"{document['name']}: cross-validation")
    yield (
        f"<p>Each labelled block of {document['block_size_km']:g} km is tested once, by a model "
        f"that was trained without it. The scores of all {document['num_folds']} folds are pooled "
        "patch by patch.</p>"
    )
    for task, entry in document["tasks"].items():
        yield f"<h2>{escape(task)}</h2><p><strong>{escape(sentence(task, entry))}</strong></p>"
        yield from _class_table(entry["pooled"])
        yield "<h3>Folds</h3>"
        yield from _table(_FOLD_HEADINGS, [_fold_cells(fold) for fold in entry["folds"]])
        yield f"<p>{escape(entry['encoder']['saw'])}</p><ul>"
        yield from (f"<li>{escape(note)}</li>" for note in entry["notes"])
        yield "</ul>"
    yield f"<p><small>Config {document['config_sha256']}</small></p></html>"


def _class_table(pooled: Mapping[str, Any]) -> Iterator[str]:
    headings = ("class", "pooled IoU", "95% interval", *CLASS_SCORES.values())
    rows = [
        (
            name,
            number(pooled["scores"][f"pooled_iou/{name}"]),
            _interval(pooled["intervals"][f"pooled_iou/{name}"]),
            *(number(pooled["scores"][f"{score}/{name}"]) for score in CLASS_SCORES),
        )
        for name in pooled["class_names"]
    ]
    yield from _table(headings, rows)


def _fold_cells(fold: Mapping[str, Any]) -> tuple[str, ...]:
    counts = fold["num_patches"]
    return (
        str(fold["fold"]),
        *(str(counts[split]) for split in ("train", "eval", "test")),
        str(fold["num_units"]),
        "" if fold["threshold"] is None else f"{fold['threshold']:.2f}",
        number(fold["scores"]["mean_iou"]),
        _interval(fold["intervals"]["mean_iou"]),
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"<table><tr>{''.join(f'<th>{escape(text)}</th>' for text in headings)}</tr>"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
    yield "</table>"


def _interval(ends: Sequence[float | None]) -> str:
    low, high = ends
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"
