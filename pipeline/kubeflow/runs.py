"""Runs: what the server says of a run -> how it ended, and waiting for that.

A gate that refuses, and a run without new data, are results and no failures. The server
knows only SUCCEEDED and FAILED: it loses exit codes, and has no output parameters in
what it says of a run. The record that the task `report` writes below the root of a run
tells them apart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import content_of, locate
from pipeline.kubeflow.connection import AwayError, KubeflowError
from pipeline.runners.node_record import NodeRecord

_WORDS = {
    ExitCode.DONE: "done",
    ExitCode.CRASH: "failed",
    ExitCode.BAD_DATA: "bad data",
    ExitCode.REFUSED: "refused",
    ExitCode.NOTHING_NEW: "nothing new",
}
_SUCCEEDED, _FAILED, _CANCELED = "SUCCEEDED", "FAILED", "CANCELED"
_ENDS = (_SUCCEEDED, _FAILED, _CANCELED, "SKIPPED")
_PATIENCE_S = 300.0
"""How long a server that is away is waited for. A restart takes less than a minute."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the server says of a run.

    Attributes:
        run_id: of the run.
        name: for people.
        state: of the run, such as RUNNING or SUCCEEDED.
        tasks: name -> state, of the tasks of the pipeline that began.
    """

    run_id: str
    name: str
    state: str
    tasks: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _ENDS

    @property
    def failed(self) -> list[str]:
        """Names of the tasks that failed."""
        return sorted(name for name, state in self.tasks.items() if state == _FAILED)


def run_of(answer: Mapping[str, Any], known: frozenset[str] = frozenset()) -> Run:
    """Return a run as the server describes it.

    Args:
        answer: to the request for a run.
        known: names of the pipeline's tasks. The server lists helpers as well: drivers,
            executors, and the run itself.
    """
    details = answer.get("run_details", {}).get("task_details", [])
    states = {one.get("display_name", ""): one.get("state", "") for one in details}
    return Run(
        run_id=answer["run_id"],
        name=answer.get("display_name", ""),
        # The state is missing until the controller sees the run.
        state=answer.get("state", "PENDING"),
        tasks={name: state for name, state in states.items() if name in known and state},
    )


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a run ended.

    Attributes:
        outcome: in a word or two; the state of a run that goes on.
        exit_code: that of `terrapair run` for this end; 0 for a run that goes on.
        reasons: why models are not published, one sentence each.
        nodes: how each node ended, by the time when it began; () = unknown.
    """

    outcome: str
    exit_code: ExitCode
    reasons: tuple[str, ...] = ()
    nodes: tuple[NodeRecord, ...] = ()


def ending(run: Run, record: Ending | None = None) -> Ending:
    """Return how a run ended, or that it goes on.

    Args:
        run: as the server describes it.
        record: what the run itself wrote; None = nothing is known of it.
    """
    if not run.has_ended or run.state == _CANCELED:
        code = ExitCode.CRASH if run.has_ended else ExitCode.DONE
        return Ending(outcome=run.state.lower(), exit_code=code)
    # A run that failed after its report is not done.
    if record is not None and (run.state == _SUCCEEDED or record.exit_code != ExitCode.DONE):
        return record
    code = ExitCode.DONE if run.state == _SUCCEEDED else ExitCode.CRASH
    return Ending(outcome=_WORDS[code], exit_code=code)


def read_record(root: str, run_id: str) -> Ending | None:
    """Return what the task `report` of a run wrote; None: it wrote nothing.

    Args:
        root: of the run, a path or a URI.
        run_id: Kubeflow's id of the run.

    Raises:
        DamagedFileError: the file is not what was written.
    """
    path = locate(root) / "runs" / run_id / "result.json"
    if not path.exists():
        return None
    with content_of(path, "look at the page of the run"):
        document = json.loads(path.read_text())
        code = ExitCode(document["exit_code"])
        reasons = tuple(map(str, document["reasons"]))
        nodes = tuple(
            settings.from_dict(NodeRecord, one) for one in document.get("nodes", {}).values()
        )
    return Ending(
        outcome=_WORDS[code],
        exit_code=code,
        reasons=reasons,
        nodes=tuple(sorted(nodes, key=lambda one: one.began_at)),
    )


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Times of a wait, in seconds.

    Attributes:
        timeout_s: longest wait for the end of a run.
        poll_s: between two looks at it.
        patience_s: longest wait for a server that is away.
    """

    timeout_s: float
    poll_s: float
    patience_s: float = _PATIENCE_S


def wait(read: Callable[[], Run], clock: Clock, on_change: Callable[[str], None]) -> Run:
    """Return a run when it has ended.

    A server that restarts, or is away for a while, does not end the wait.

    Args:
        read: asks for the run.
        clock: times of the wait.
        on_change: gets a line when the run or one of its tasks changes its state.

    Raises:
        AwayError: the server is away for longer than `clock.patience_s`.
        KubeflowError: the run has not ended in time. It goes on.
    """
    began = last_answer = time.monotonic()
    before: Run | None = None
    while True:
        try:
            run = read()
        except AwayError as error:
            if time.monotonic() - last_answer > clock.patience_s:
                raise
            on_change(f"{error}; trying again")
        else:
            last_answer = time.monotonic()
            for line in _changes(before, run):
                on_change(line)
            if run.has_ended:
                return run
            before = run
        if time.monotonic() - began > clock.timeout_s:
            state = "unknown" if before is None else before.state
            raise KubeflowError(
                f"the run has not ended within {clock.timeout_s:g} s (state {state}), and goes on: "
                "wait longer with --timeout, or look again with --run-id"
            )
        time.sleep(clock.poll_s)


def _changes(before: Run | None, now: Run) -> list[str]:
    known = {} if before is None else before.tasks
    lines = [f"{name}: {state}" for name, state in now.tasks.items() if known.get(name) != state]
    if before is None or before.state != now.state:
        lines.append(f"run: {now.state}")
    return lines
