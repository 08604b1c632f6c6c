"""Runs: how the server describes one -> its end; waiting."""

import json
import time

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import DamagedFileError
from pipeline.kubeflow.connection import AwayError, KubeflowError
from pipeline.kubeflow.runs import Clock, Ending, Run, ending, read_record, run_of, wait
from pipeline.runners.node_record import NodeRecord

QUICK = {"poll_s": 0.001}


def run(state, tasks=None):
    return Run(run_id="1", name="a run", state=state, tasks=tasks or {})


@pytest.mark.parametrize(
    ("state", "tasks", "code", "outcome"),
    [
        ("SUCCEEDED", {"trainer": "SUCCEEDED"}, ExitCode.DONE, "done"),
        ("FAILED", {"trainer": "FAILED"}, ExitCode.CRASH, "failed"),
        ("FAILED", {}, ExitCode.CRASH, "failed"),
        ("CANCELED", {}, ExitCode.CRASH, "canceled"),
        ("SKIPPED", {}, ExitCode.CRASH, "failed"),
    ],
)
def test_without_a_record_the_server_has_the_last_word(state, tasks, code, outcome):
    ended = run(state, tasks)
    assert ended.has_ended
    assert ending(ended) == Ending(outcome=outcome, exit_code=code)


def test_only_tasks_of_the_pipeline_count():
    answer = {
        "run_id": "1",
        "state": "FAILED",
        "run_details": {
            "task_details": [
                {"display_name": "small-x8k2j", "state": "FAILED"},
                {"display_name": "root", "state": "FAILED"},
                {"display_name": "trainer", "state": "FAILED"},
                {"display_name": "executor", "state": "FAILED"},
                {"display_name": "trainer-driver", "state": "SUCCEEDED"},
                {"display_name": "pusher"},
            ]
        },
    }
    found = run_of(answer, frozenset({"trainer", "pusher", "cut"}))
    assert dict(found.tasks) == {"trainer": "FAILED"}
    assert found.failed == ["trainer"]


def test_a_run_that_nobody_has_seen_yet_is_pending():
    found = run_of({"run_id": "1"}, frozenset())
    assert (found.state, found.has_ended) == ("PENDING", False)
    assert ending(found) == Ending(outcome="pending", exit_code=ExitCode.DONE)


def write_record(root, document):
    path = root / "runs" / "1" / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def test_the_record_of_a_run_tells_a_refusal_from_a_failure(tmp_path):
    assert read_record(str(tmp_path), "1") is None
    reasons = ["Evaluator-flood: mean IoU 0.2 is below 0.5"]
    times = {"began_at": "2026-11-30T10:00:00+00:00", "ended_at": "2026-11-30T10:01:00+00:00"}
    begin = NodeRecord(node="begin", outcome="done", **times)
    times["began_at"] = "2026-11-30T10:00:30+00:00"
    use = NodeRecord(node="Use", outcome="done", peak_mib=900.5, **times)
    nodes = {one.node: settings.to_dict(one) for one in (use, begin)}
    # As an older version wrote it.
    del nodes["begin"]["peak_mib"]
    document = {"outcome": "refused", "exit_code": 4, "reasons": reasons, "nodes": nodes}
    write_record(tmp_path, document)
    record = read_record(str(tmp_path), "1")
    refused = Ending(
        outcome="refused",
        exit_code=ExitCode.REFUSED,
        reasons=tuple(reasons),
        nodes=(begin, use),
    )
    assert record == refused
    # The server calls it a failure, or not, as the pipeline has it.
    assert ending(run("FAILED", {"report": "FAILED"}), record) == refused
    assert ending(run("SUCCEEDED"), record) == refused


def test_a_run_that_fails_after_a_good_report_has_failed():
    record = Ending(outcome="done", exit_code=ExitCode.DONE)
    assert ending(run("SUCCEEDED"), record) == record
    assert ending(run("FAILED"), record).exit_code == ExitCode.CRASH
    assert ending(run("CANCELED"), record).outcome == "canceled"


@pytest.mark.parametrize("document", ["{", "[]", {"exit_code": 4}, {"exit_code": 9, "reasons": []}])
def test_a_damaged_record_is_named(document, tmp_path):
    write_record(tmp_path, document)
    with pytest.raises(DamagedFileError, match=r"runs/1/result.json: "):
        read_record(str(tmp_path), "1")


def test_waiting_tells_each_change_once():
    story = [
        run("PENDING"),
        run("RUNNING", {"cut": "RUNNING"}),
        run("RUNNING", {"cut": "RUNNING"}),
        run("SUCCEEDED", {"cut": "SUCCEEDED"}),
    ]
    told = []
    ended = wait(iter(story).__next__, Clock(timeout_s=60, **QUICK), told.append)
    assert ended is story[-1]
    assert told == [
        "run: PENDING",
        "cut: RUNNING",
        "run: RUNNING",
        "cut: SUCCEEDED",
        "run: SUCCEEDED",
    ]


def test_a_server_that_restarts_does_not_end_the_wait():
    answers = [AwayError("gone"), AwayError("gone"), run("SUCCEEDED")]

    def read():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    told = []
    assert wait(read, Clock(timeout_s=60, **QUICK), told.append).state == "SUCCEEDED"
    assert told[:2] == ["gone; trying again"] * 2


def test_a_server_that_stays_away_ends_it():
    def read():
        raise AwayError("gone")

    with pytest.raises(AwayError, match="gone"):
        wait(read, Clock(timeout_s=60, patience_s=0.01, **QUICK), lambda _: None)


def test_a_run_that_does_not_end_in_time_is_an_error_that_names_its_state():
    began = time.monotonic()
    with pytest.raises(KubeflowError, match=r"not ended within 0.05 s \(state RUNNING\)") as raised:
        wait(lambda: run("RUNNING"), Clock(timeout_s=0.05, **QUICK), lambda _: None)
    assert raised.value.exit_code == ExitCode.CRASH
    assert time.monotonic() - began < 5
