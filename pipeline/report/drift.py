"""Drift on the terminal: the outcome for each data set, and its largest findings.

DriftReport -> lines and a table. The report of a run and the verb `drift` show them.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from models.drift.report import DriftReport, Finding, ratio

_NUM_ROWS = 12
_OUTCOMES = {
    "no_reference": "no reference yet",
    "same_data": "the data of the model in service",
    "passed": "[green]passed[/green]",
    "accepted": "[yellow]accepted by drift.accept_spans[/yellow]",
    "refused": "[red]refused[/red]",
}


def drift_lines(report: DriftReport) -> Iterator[RenderableType]:
    """Yield the outcome of one data set, with the reasons of what is wrong."""
    against = (
        f", score {report.score:.2f} of 1 against span {report.reference_span} of "
        f"{report.reference}"
        if report.findings
        else ""
    )
    name = f"{report.data} {report.span}.{report.version}"
    yield f"  {name}: {_OUTCOMES[report.outcome]}{escape(against)}"
    yield from (f"  [red]refused: {escape(reason)}[/red]" for reason in report.refusals)
    yield from (f"  [yellow]warning: {escape(reason)}[/yellow]" for reason in report.warnings)
    yield from (f"  {escape(note)}" for note in report.notes)


def drift_table(report: DriftReport) -> Table | None:
    """Return the findings that are nearest to their limits; None: there are none."""
    if not report.findings:
        return None
    table = Table(title=f"{report.data}: {_title(report)}", title_justify="left")
    for column in ("rule", "what", "reference", "new", "value", "limit", "score", ""):
        table.add_column(column, justify="left" if column in ("rule", "what", "") else "right")
    for one in sorted(report.findings, key=ratio, reverse=True)[:_NUM_ROWS]:
        table.add_row(
            one.rule,
            escape(one.about),
            _number(one.reference),
            _number(one.found),
            _number(one.value),
            _number(one.limit),
            f"{ratio(one):.2f}",
            _mark(one),
        )
    return table


def _title(report: DriftReport) -> str:
    rest = len(report.findings) - _NUM_ROWS
    shown = min(len(report.findings), _NUM_ROWS)
    return f"the {shown} figures nearest to their limits" + (
        f", of {len(report.findings)}" if rest > 0 else ""
    )


def _mark(finding: Finding) -> str:
    if not finding.is_exceeded:
        return "[green]ok[/green]"
    return "[red]refused[/red]" if finding.severity == "refuse" else "[yellow]warning[/yellow]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
