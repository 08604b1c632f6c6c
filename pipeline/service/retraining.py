"""Retrain: one attempt to bring new scenes into service, and its record.

RunConfig and the run as a function -> how the attempt ended. Models that are in service
stay there until a gate blesses better ones, so a failure changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from beam_jobs.contracts import published, settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import DamagedFileError, locate
from beam_jobs.terminal import failures
from models.publishing import labels
from pipeline.config import RunConfig
from pipeline.data_build import Stage, newest_versions
from pipeline.refused_spans import read_refused
from pipeline.runners.whole_run import FindDrift, Finished, SpanRule
from pipeline.service import attempts
from pipeline.service.attempts import Attempt, Outcome
from pipeline.service.notification import Message

_OUTCOMES: dict[int, Outcome] = {
    ExitCode.REFUSED: "refused",
    ExitCode.NOTHING_NEW: "nothing_new",
}
"""Exit code of an error -> outcome; others are failures."""
_DONE_WITH_DATA: tuple[Outcome, ...] = ("published", "unchanged", "refused", "nothing_new")
"""Outcomes after which the same data need no further attempt."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An attempt that came to its end.

    Attributes:
        attempt: as it is in the record.
        result: report of the run, or the error that ended it.
    """

    attempt: Attempt
    result: Finished | Exception


def retrain(config: RunConfig, run: Callable[[SpanRule, FindDrift], Finished]) -> Ended:
    """Make one attempt; errors of the run become part of what is returned.

    The folders of the run must be held (`root.hold`).

    Args:
        config: the run.
        run: builds data, trains and publishes; see `run_whole` for its arguments.

    Raises:
        DamagedFileError: the record of attempts is not what was written.
    """
    earlier = attempts.read_attempts(config.root)
    rule = span_rule(earlier)
    begun = attempts.begin(config.root, settings.sha256(config))
    drift: dict[str, str] = {}

    def find_drift(stage: Stage) -> Sequence[str]:
        # Only now: it needs TensorFlow.
        from pipeline.service.drift import find_drifted

        put_back = {
            (one.data, one.record.name) for one in read_refused(config.root) if not one.is_left_out
        }
        tried = attempts.tried(earlier, put_back, warm_start=config.warm_start)
        found = find_drifted(config, tried, stage)
        drift.update({one.report.data: one.version for one in found})
        # Before the training: drift that started one which was killed has started it.
        attempts.update(config.root, replace(begun, drift=drift))
        return [one.sentence for one in found]

    before: dict[str, int] = {}
    result: Finished | Exception
    try:
        before = _in_service(config)
        result = run(rule, find_drift)
        code, reasons = int(result.exit_code), result.refusals
    except Exception as raised:  # noqa: BLE001 - whatever a run raises, the record tells it
        result = raised
        failure = failures.failure_of(raised, "retrain")
        code, reasons = failure.exit_code, (failure.message,)
    new: dict[str, int] = {}
    # Then the run ended with that error, too.
    with contextlib.suppress(DamagedFileError):
        new = dict(_in_service(config).items() - before.items())
    done: Outcome = "published" if new else "unchanged"
    attempt = replace(
        begun,
        ended_at=labels.now(),
        outcome=done if code == ExitCode.DONE else _OUTCOMES.get(code, "failed"),
        exit_code=code,
        data=newest_versions(config),
        published=new,
        reasons=reasons,
        drift=drift,
    )
    attempts.update(config.root, attempt)
    return Ended(attempt=attempt, result=result)


def message(config: RunConfig, attempt: Attempt) -> Message:
    """Return what is told about an attempt that came to its end.

    Raises:
        ValueError: it has not ended.
    """
    if attempt.outcome == "unfinished":
        raise ValueError(f"an attempt that is told must have ended, got {attempt}")
    document = {
        "event": attempt.outcome,
        "run": config.name,
        "root": config.root,
        "attempt": settings.to_dict(attempt),
    }
    return Message(id=attempt.id, event=attempt.outcome, document=document)


def span_rule(earlier: Sequence[Attempt]) -> SpanRule:
    """Return which data the next attempt reads.

    The first attempt, and the one after an attempt that was killed or failed, use the
    newest span if there is no newer scene: it may never have been trained on.

    Args:
        earlier: attempts, the oldest first.
    """
    is_done = bool(earlier) and earlier[-1].outcome in _DONE_WITH_DATA
    return "new" if is_done else "new_or_newest"


def _in_service(config: RunConfig) -> dict[str, int]:
    """Return model -> version in service.

    Raises:
        DamagedFileError: labels are not what was written.
    """
    folder = locate(config.serving_dir)
    paths = folder.iterdir() if folder.is_dir() else ()
    found = {path.name: published.in_service(path) for path in paths if path.is_dir()}
    return {name: int(version.name) for name, version in found.items() if version is not None}
