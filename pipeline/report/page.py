"""The report of a run: tables for the terminal, and pictures of each task.

RunConfig and RunResults -> rich renderables, and PNG files in the report folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from beam_jobs.contracts import layout, locations
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.published import ASSETS_DIR
from beam_jobs.data_card.card import MARKDOWN_NAME as CARD_NAME
from models.encoder_probe.report import Check, ProbeReport
from models.gate.verdict import Verdict
from models.published.export import MAP_NAME
from models.scores.patch_scores import PatchScores
from models.scores.score_file import read_scores
from models.segment import encoder_starts
from pipeline.config import RunConfig
from pipeline.report.drift import drift_lines
from pipeline.report.pictures import draw_task
from pipeline.report.results import (
    DISPLACED,
    OVERALL,
    DataResult,
    ModelResult,
    RunResults,
    TaskResult,
)
from pipeline.report.scores import (
    draw_reliability,
    number,
    read_eval_scores,
    score_line,
    score_parts,
)

MAX_ANOMALIES = 8
MAX_ANOMALY_CHARS = 200
_WORDS = ("test patches", "metric", "")


def render_report(config: RunConfig, results: RunResults) -> Iterator[RenderableType]:
    """Yield the parts of the report in order, and draw the pictures."""
    yield _data_table(results.data)
    yield from _anomaly_lines(results.data)
    yield from _drift_lines(results.data)
    if results.refused_spans:
        yield "[bold]Refused spans[/bold] (docs/retraining.md):"
    yield from (f"  {escape(one.sentence)}" for one in results.refused_spans)
    yield "[bold]Overlap audit[/bold] (pretraining patches against eval and test patches):"
    yield from (f"  {name}: {escape(verdict)}" for name, verdict in results.audits.items())
    if results.models:
        yield _training_table(results)
    if results.encoder is not None:
        yield _health_table(results.encoder)
        yield from _health_lines(results.encoder)
    if results.probe is not None:
        yield from _probe_parts(results.probe)
    yield from _untrained_lines(config, results)
    schemas = {settings.name: settings.label.label_schema for settings in config.tasks}
    for task in results.tasks:
        yield _task_table(task, schemas[task.name].class_names)
        yield from _gate_parts(task.name, task.verdict)
        yield from _failure_lines(task)
        # Full tables for the first split, which is test where it exists: the eval split
        # was used to choose the threshold.
        for position, (split, scores) in enumerate(_read_scores(task).items()):
            yield from (
                score_parts(task.name, scores, split)
                if position == 0
                else [score_line(scores, split)]
            )
    for model in results.models:
        yield from (
            f"[red]{model.name}: not published: the canary: {escape(fault)}[/red]"
            for fault in model.faults
        )
        yield from (f"[red]{model.name}: {escape(line)}[/red]" for line in model.damage)
    yield _place_table(config, results)


def _untrained_lines(config: RunConfig, results: RunResults) -> Iterator[RenderableType]:
    missing = [
        task.name
        for task in config.tasks
        if task.name not in {trained.name for trained in results.tasks}
    ]
    if results.refused_data:
        names = ", ".join(report.data for report in results.refused_data)
        yield f"[red]nothing was trained: the data are refused: {names}[/red]"
    elif missing and results.is_refused:
        yield "[red]no task was trained: the encoder is refused[/red]"
    elif missing:
        teachers = ", ".join(results.refused_teachers)
        yield (
            f"[red]not trained: {', '.join(missing)}: the run ended at a refused teacher: "
            f"{teachers}[/red]"
        )


def _data_table(data: tuple[DataResult, ...]) -> Table:
    table = Table(title="Data", title_justify="left")
    for column in ("data set", "span/version", *layout.SPLITS, "rejected, by reason"):
        table.add_column(column, justify="right" if column in layout.SPLITS else "left")
    for item in data:
        counts = item.manifest.num_examples
        rejected = ", ".join(
            f"{reason} {count}"
            for reason, count in sorted(item.manifest.num_rejected.items())
            if count
        )
        table.add_row(
            item.name,
            item.versions,
            *(str(counts.get(split, 0)) for split in layout.SPLITS),
            rejected or "none",
        )
    return table


def _anomaly_lines(data: tuple[DataResult, ...]) -> Iterator[RenderableType]:
    lines = [
        f"  {item.name}, {split}: {escape(shorten(line, MAX_ANOMALY_CHARS, placeholder=' ...'))}"
        for item in data
        for split, split_lines in item.anomalies.items()
        for line in split_lines
    ]
    yield "[bold]Anomalies[/bold] (ExampleValidator): " + (f"{len(lines)}" if lines else "none")
    yield from lines[:MAX_ANOMALIES]
    if len(lines) > MAX_ANOMALIES:
        yield f"  and {len(lines) - MAX_ANOMALIES} more"


def _drift_lines(data: tuple[DataResult, ...]) -> Iterator[RenderableType]:
    reports = [item.drift for item in data if item.drift is not None]
    if reports:
        yield "[bold]Drift[/bold] (against the data of the models in service; docs/drift.md):"
    for report in reports:
        yield from drift_lines(report)


def _training_table(results: RunResults) -> Table:
    table = Table(title="Training (scores on the eval split)", title_justify="left")
    for column in ("model", "train loss", "eval loss", "scores"):
        table.add_column(column, justify="left" if column in ("model", "scores") else "right")
    for model in results.models:
        values = model.training
        # Values per class are in the tables of the tasks.
        scores = {
            key: value
            for key, value in values.items()
            if key not in ("train_loss", "eval_loss", "loss") and "/" not in key
        }
        text = ", ".join(f"{key} {_short(value)}" for key, value in sorted(scores.items()))
        eval_loss = values.get("eval_loss", values.get("loss"))
        table.add_row(model.name, number(values.get("train_loss")), number(eval_loss), text)
    return table


def _health_table(encoder: ModelResult) -> Table:
    table = Table(title="Health of the encoders (eval split; docs/health.md)", title_justify="left")
    for column in ("figure", "s1", "s2"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    rows: dict[str, dict[str, float]] = {}
    for key, value in encoder.training.items():
        name, _, about = key.partition("/")
        if about:
            # "s1_to_s2" goes into the column of its query sensor s1. "s1_s2" belongs to
            # both sensors and is shown once, also under s1.
            rows.setdefault(name, {})[about[:2]] = value
    for name, values in rows.items():
        table.add_row(name, number(values.get("s1")), number(values.get("s2")))
    return table


def _health_lines(encoder: ModelResult) -> Iterator[RenderableType]:
    missing = [
        f"{name} ({reason})" for name, reason in encoder.health.get("not_measured", {}).items()
    ]
    if missing:
        yield escape("  not measured: " + ", ".join(missing))
    yield from (
        f"[yellow]alarm: {escape(alarm)}[/yellow]" for alarm in encoder.health.get("alarms", ())
    )


def _short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and value > 1 else number(value)


def _probe_parts(probe: ProbeReport) -> Iterator[RenderableType]:
    labels = (
        f", {probe.num_train_patches} + {probe.num_eval_patches} patches of {probe.labels}"
        if probe.labels
        else ""
    )
    outcome = "refused" if probe.refusals else "control" if probe.is_control else "blessed"
    # A line instead of a table title, which rich would fold to the table's width.
    yield f"[bold]Encoder probe: {outcome}[/bold] ({probe.num_pairs} pairs{labels})"
    table = Table()
    for column in ("check", "value", "interval", "asked", ""):
        table.add_column(column, justify="left" if column in ("check", "") else "right")
    for check in probe.checks:
        mark = _mark(check)
        interval = "" if check.low is None else f"{number(check.low)} to {number(check.high)}"
        table.add_row(check.name, number(check.value), interval, number(check.asked), mark)
    yield table
    yield from (f"  {escape(note)}" for note in probe.notes)
    yield from (f"[red]encoder: not published: {escape(reason)}[/red]" for reason in probe.refusals)


def _mark(check: Check) -> str:
    if not check.judged:
        return "[yellow]too few to judge[/yellow]"
    return "[green]ok[/green]" if check.passed else "[red]refused[/red]"


def _task_table(task: TaskResult, class_names: Sequence[str]) -> Table:
    table = Table(title=f"{task.name}: pooled IoU on the test split", title_justify="left")
    table.add_column("class")
    for name in task.test:
        table.add_column("all" if name == OVERALL else name, justify="right")
    for metric in [*(f"pooled_iou/{name}" for name in class_names), "mean_iou"]:
        values = [number(values.get(metric)) for values in task.test.values()]
        is_mean = metric == "mean_iou"
        table.add_row(
            metric.removeprefix("pooled_iou/"), *values, style="bold" if is_mean else None
        )
    return table


def _read_scores(task: TaskResult) -> dict[str, PatchScores]:
    """Return split -> scores, test first. Runs of version 0.1 lack one or both."""
    found = {
        "test": read_scores(task.test_scores) if task.test_scores is not None else None,
        "eval": read_eval_scores(task.saved_model),
    }
    return {split: scores for split, scores in found.items() if scores is not None}


def _gate_parts(name: str, verdict: Verdict) -> Iterator[RenderableType]:
    """Yield the gate's outcome, and what it compared with the model in service."""
    outcome = verdict.outcome.replace("_", " ")
    against = f"against {verdict.champion}" if verdict.champion else "no model was in service"
    yield f"[bold]{name}: gate: {outcome}[/bold] ({escape(against)})"
    if verdict.comparisons:
        table = Table()
        for column in ("test patches", "metric", "new", "in service", "difference", "margin", ""):
            table.add_column(column, justify="left" if column in _WORDS else "right")
        for one in verdict.comparisons:
            interval = f"{number(one.low)} to {number(one.high)}" if one.low is not None else ""
            table.add_row(
                f"{escape(one.name)} ({one.num_patches})",
                escape(one.metric),
                number(one.candidate),
                number(one.champion),
                interval,
                number(one.margin),
                "[green]ok[/green]" if one.passed else "[red]refused[/red]",
            )
        yield table
    yield from (f"  {escape(note)}" for note in verdict.notes)
    color = "red" if verdict.outcome == "refused" else "green"
    says = "not published" if verdict.outcome == "refused" else outcome
    yield from (f"[{color}]{name}: {says}: {escape(one)}[/{color}]" for one in verdict.reasons)


def _failure_lines(task: TaskResult) -> Iterator[RenderableType]:
    if task.is_displaced:
        yield f"[red]{task.name}: {DISPLACED}[/red]"
    yield from (
        f"[red]{task.name}: not published: {escape(failure.sentence)}[/red]"
        for failure in task.failures
    )


def _place_table(config: RunConfig, results: RunResults) -> Table:
    table = Table(title="Where", title_justify="left", show_header=False)
    table.add_column("what")
    # Folded, not cut: paths must be complete to be copied.
    table.add_column("where", overflow="fold")
    for start in _starts(config):
        table.add_row("started from", escape(start))
    for model in results.models:
        is_control = model is results.encoder and results.is_control
        absent = "not published: an untrained control" if is_control else "[red]not published[/red]"
        table.add_row(f"model {model.name}", str(model.published or absent))
        table.add_row(f"canary {model.name}", escape(model.canary.summary))
    for name, path in draw_pictures(config, results).items():
        table.add_row(f"picture {name}", str(path))
    for item in results.data:
        card = item.version_dir / CARD_NAME
        # Versions built by early releases have no data card.
        table.add_row(
            f"data card {item.name}",
            str(card) if card.exists() else "none: terrapair card",
        )
    for task in results.tasks:
        if task.test_scores is not None:
            table.add_row(f"test scores {task.name}", str(task.test_scores))
    for model in results.models:
        table.add_row(f"TensorBoard {model.name}", str(model.log_dir))
    table.add_row("metadata", str(config.metadata or config.metadata_path))
    table.add_row("config", f"{config.root.rstrip('/')}/config.yaml")
    cached, total = results.record.num_cached, len(results.record.components)
    table.add_row("components", f"{total - cached} ran, {cached} cached")
    return table


def _starts(config: RunConfig) -> list[str]:
    """Return the published encoders that the run's tasks start from, each once."""
    folders = (encoder_starts(task.segment, None).values() for task in config.tasks)
    return list(dict.fromkeys(itertools.chain(*folders)))


def draw_pictures(config: RunConfig, results: RunResults) -> Mapping[str, Location]:
    """Draw the embedding map, and picture and reliability curve of each task.

    Returns:
        Name -> PNG in the report folder. Task pictures of the same model and data are
        not drawn again.
    """
    versions = {item.name: item for item in results.data}
    pictures = {}
    encoder = results.encoder
    if encoder is not None and (encoder.saved_model / ASSETS_DIR / MAP_NAME).exists():
        pictures["embedding map"] = locate(config.report_dir) / MAP_NAME
        with locations.staged(pictures["embedding map"]) as partial:
            partial.write_bytes((encoder.saved_model / ASSETS_DIR / MAP_NAME).read_bytes())
    for task in results.tasks:
        pictures[task.name] = locate(config.report_dir) / f"{task.name}.png"
        draw_task(task.name, task.saved_model, versions[task.name], pictures[task.name])
        for split, scores in list(_read_scores(task).items())[:1]:
            pictures[f"{task.name} reliability"] = (
                locate(config.report_dir) / f"{task.name}_reliability.png"
            )
            draw_reliability(task.name, scores, split, pictures[f"{task.name} reliability"])
    return pictures
