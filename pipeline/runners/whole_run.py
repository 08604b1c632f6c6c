"""One run of the whole pipeline: data, trainings, gates, publication, report.

RunConfig -> Finished, or an error with its exit code. `run` and `retrain` both call
`run_whole`; the folders of the run must be held (`root.hold`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from rich.console import RenderableType
from rich.text import Text

from beam_jobs.contracts import locations, settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.errors import NothingNewError, RefusedError
from beam_jobs.terminal.quiet import silence_absl
from beam_jobs.terminal.session import Session
from pipeline.config import RunConfig
from pipeline.metadata_store import Place, check_place
from pipeline.refused_spans import RefusedSpan, read_refused
from pipeline.service.preconditions import check_preconditions, remove_unfinished

SpanRule = Literal["newest", "new", "new_or_newest"]
"""Which data a run reads.

"newest": the newest span, built again if its input has changed. "new": a new span, or
no run at all. "new_or_newest": a new span if there are new scenes, else the newest.
"""


FindDrift = Callable[[Callable[[str], AbstractContextManager[None]]], Sequence[str]]
"""Takes stages of the progress; returns a sentence on each data set that drifted."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The report of a run.

    Attributes:
        document: as plain values.
        parts: for the terminal.
        exit_code: 0 if every model is published, 3 if a version in service is damaged,
            4 if a gate refused one, or data.
        refusals: why models are not published and data not used, one sentence each.
    """

    document: dict[str, Any]
    parts: tuple[RenderableType, ...]
    exit_code: ExitCode
    refusals: tuple[str, ...]


def run_whole(
    config: RunConfig,
    place: Place,
    session: Session,
    spans: SpanRule,
    *,
    verify_files: bool = False,
    find_drift: FindDrift | None = None,
) -> Finished:
    """Build the data, run all components, and return the report.

    A span that is refused ends the run, unless other new data are left to train on.
    Model servers that follow the run's labels get the new ones.

    Args:
        config: the run.
        place: where its metadata are.
        session: shows the progress.
        spans: which data it reads.
        verify_files: compare the content of all input files and shards.
        find_drift: asked when `spans` is "new" and no scene is; if it finds any, the
            run goes on with the spans that are there. None = it ends.

    Raises:
        NothingNewError: `spans` is "new", no scene is, and nothing drifted.
        UnwritableError: the models could not be published.
        TerrapairError: bad data, or a gate ended the run.
    """
    if config.span is not None:
        raise settings.SettingsError(
            f"span: a whole run reads the newest span, got {config.span}: set span=null"
        )
    check_place(place, is_written=True)
    check_preconditions(config)
    # Not only at the next push: until then, a server may hold a version that is none.
    remove_unfinished(config)
    write_resolved(session, config)
    from pipeline.data_build import build_data

    with session.progress() as progress:
        built = build_data(
            config,
            progress.stage,
            progress.update,
            verify_files=verify_files,
            new_span=spans != "newest",
        )
        is_idle = spans == "new" and not built.new
        drifted = find_drift(progress.stage) if is_idle and find_drift is not None else ()
        for line in drifted:
            progress.note(line)
        if is_idle and not drifted:
            raise NothingNewError(
                f"{config.root}: every scene is in an earlier span, or has no partner: nothing was "
                "built or trained; `terrapair run` without --new-span uses the newest span",
                "nothing_new",
            )
        # Only now: importing TFX takes seconds that bad data should not cost.
        with progress.stage("import TFX"):
            from pipeline.runners.local import run_local
        if not session.verbose:
            silence_absl()

        def on_step(_: str, step: int, total: int, values: Mapping[str, float]) -> None:
            progress.update(step, total, values)

        def on_refusal(line: str) -> None:
            progress.note(line, is_warning=True)
            progress.finish(failed=True)

        refusals = run_good_spans(
            config,
            built.new,
            lambda: run_local(config, place, progress.start, on_step, progress.note),
            on_refusal,
        )
    from pipeline.serving.following import follow_all

    follow_all(config.root, config.serving_dir)
    # After an attempt with new data, what earlier ones refused is told already.
    return read_finished(config, place, refused=refusals if refusals or spans == "new" else None)


def run_good_spans(
    config: RunConfig,
    new: Sequence[str],
    run: Callable[[], None],
    on_refusal: Callable[[str], None],
) -> tuple[str, ...]:
    """Run; when spans are set aside, run again with what else is new.

    Args:
        config: the run.
        new: data sets that got a new span.
        run: the whole pipeline.
        on_refusal: told why spans were set aside, when the run goes on.

    Returns:
        The refusals, one sentence each.

    Raises:
        RefusedError: a gate ended the run, and no new span is left without a refusal.
    """
    refusals: list[str] = []
    steps = [_left_out(config)]
    while True:
        try:
            run()
            return tuple(refusals)
        except RefusedError as error:
            steps.append(_left_out(config))
            is_left = set(new) - {one.data for one in steps[-1] if one.is_newest}
            if config.window is not None and steps[-1] != steps[-2] and is_left:
                refusals.append(str(error))
                on_refusal(str(error))
                continue
            if not refusals:
                raise
            aside = sorted(f"{one.data} {one.record.name}" for one in steps[-1] - steps[0])
            raise RefusedError(
                f"{error}; set aside in this run: {', '.join(aside)}: `terrapair history` shows "
                "all reasons",
                error.reason,
            ) from error


def _left_out(config: RunConfig) -> set[RefusedSpan]:
    return {one for one in read_refused(config.root) if one.is_left_out}


def read_finished(
    config: RunConfig, place: Place, run_id: str = "", refused: Sequence[str] | None = None
) -> Finished:
    """Return the report of the last run, and write its files again.

    Args:
        config: the run.
        place: where its metadata are.
        run_id: the run of this id instead; "" = the last.
        refused: why data are not used, one sentence each. None: those whose newest span
            is set aside.

    Raises:
        DataError: there was no run, or a component of the last run failed.
    """
    from pipeline.report.document import make_document, write_document
    from pipeline.report.page import render_report
    from pipeline.report.results import collect_results

    results = collect_results(config, place, run_id)
    # The pictures are drawn while the parts are made, with --json, too.
    parts = tuple(
        Text.from_markup(part) if isinstance(part, str) else part
        for part in render_report(config, results)
    )
    document = make_document(config, results)
    write_document(config, document)
    if refused is None:
        refused = [
            one.sentence for one in results.refused_spans if one.is_newest and one.is_left_out
        ]
    is_done = results.is_published and not refused
    if_not = ExitCode.BAD_DATA if results.is_damaged else ExitCode.REFUSED
    return Finished(
        document=document,
        parts=parts,
        exit_code=ExitCode.DONE if is_done else if_not,
        refusals=(*refused, *results.refusals),
    )


def write_resolved(session: Session, config: RunConfig) -> None:
    """Write the settings with all defaults into the root of the run, and log them."""
    digest = settings.sha256(config)
    logging.getLogger("terrapair").info("config %s %s", digest, settings.canonical_json(config))
    path = locations.parse(config.root) / "config.yaml"
    with locations.staged(path) as file:
        file.write_text(resolved_text(config))
    session.note(f"{config.name}: config {path}, sha256 {digest[:12]}")


def resolved_text(config: RunConfig) -> str:
    """Return the settings with all defaults as YAML, below a line with their hash."""
    text = yaml.safe_dump(settings.to_dict(config), sort_keys=False)
    return f"# sha256 {settings.sha256(config)}\n{text}"
