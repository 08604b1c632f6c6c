"""Attempts to retrain, with a function in place of the pipeline: record, outcome, history."""

import dataclasses
import json
import os

import pytest

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.contracts.locations import DamagedFileError
from beam_jobs.errors import DataError, NothingNewError, RefusedError
from beam_jobs.storage import locks
from beam_jobs.terminal import program
from models.drift.report import DriftReport
from models.publishing import publication
from models.publishing.publication import Approval
from pipeline.config import load_run_config
from pipeline.runners import root
from pipeline.runners.whole_run import Finished
from pipeline.service import attempts, drift, history, retraining
from pipeline.service.attempts import RECORD_NAME
from pipeline.service.drift import Drifted
from tests.data.runs.repository import REPOSITORY


@pytest.fixture
def config(tmp_path):
    path = REPOSITORY / "pipeline/configs/smoke.yaml"
    return load_run_config(path, [f"root={tmp_path / 'run'}"], {})


def finished(code=ExitCode.DONE, *refusals):
    return Finished(document={}, parts=(), exit_code=code, refusals=refusals)


def publish(config, model, word):
    folder = config.root + f"/models/{word}"
    os.makedirs(f"{folder}/assets.extra")
    for name, text in (("saved_model.pb", word), ("assets.extra/model_card.json", "{}")):
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    publication.publish(folder, f"{config.serving_dir}/{model}", Approval(reason="better"))


def make_version(config, name, span):
    folder = f"{config.root}/data/{name}/span-{span}/version-1"
    os.makedirs(folder)
    with open(f"{folder}/manifest.json", "w") as file:
        file.write("{}")


def fail(error):
    raise error


def test_what_went_into_service_is_recorded_with_its_data(config):
    publish(config, "encoder", "old")
    publish(config, "landcover", "same")

    def run(*_):
        make_version(config, "pairs", 1)
        make_version(config, "flood", 10)
        make_version(config, "flood", 9)
        publish(config, "encoder", "new")
        publish(config, "flood", "first")
        return finished()

    ended = retraining.retrain(config, run)
    (read,) = attempts.read_attempts(config.root)
    assert read == ended.attempt
    assert (read.outcome, read.exit_code) == ("published", 0)
    assert read.published == {"encoder": 2, "flood": 1}
    assert read.data == {"pairs": "1.1", "flood": "10.1"}
    assert "" < read.started_at <= read.ended_at


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (NothingNewError("no scene is new", "nothing_new"), "nothing_new", 5),
        (RefusedError("doubled dB"), "refused", 4),
        (DataError("catalog is gone", "missing_file"), "failed", 3),
        (MemoryError("no memory"), "failed", 1),
    ],
)
def test_an_error_is_recorded_and_leaves_what_is_in_service(config, error, outcome, code):
    publish(config, "flood", "good")
    ended = retraining.retrain(config, lambda *_: fail(error))
    assert ended.result is error
    (read,) = attempts.read_attempts(config.root)
    assert (read.outcome, read.exit_code, read.published) == (outcome, code, {})
    assert str(error) in read.reasons[0]


def test_a_refused_task_beside_a_published_encoder_is_a_refusal_that_tells_both(config):
    def run(*_):
        publish(config, "encoder", "new")
        return finished(ExitCode.REFUSED, "flood: it loses 0.2")

    attempt = retraining.retrain(config, run).attempt
    assert (attempt.outcome, attempt.exit_code) == ("refused", 4)
    assert attempt.published == {"encoder": 1}
    assert attempt.reasons == ("flood: it loses 0.2",)


def test_damaged_labels_are_a_failed_attempt(config):
    publish(config, "flood", "good")
    with open(f"{config.serving_dir}/flood/labels.json", "w") as file:
        file.write("{")
    ended = retraining.retrain(config, lambda *_: finished())
    assert isinstance(ended.result, DamagedFileError)
    (read,) = attempts.read_attempts(config.root)
    assert (read.outcome, read.exit_code) == ("failed", 3)


@pytest.mark.parametrize(
    ("last", "rule"),
    [
        (None, "new_or_newest"),
        (finished(), "new"),
        (finished(ExitCode.REFUSED, "worse"), "new"),
        (NothingNewError("none", "nothing_new"), "new"),
        (RefusedError("poison"), "new"),
        (DataError("no catalog"), "new_or_newest"),
        (KeyboardInterrupt(), "new_or_newest"),
    ],
)
def test_the_newest_span_is_trained_again_only_after_an_attempt_that_broke_off(config, last, rule):
    if isinstance(last, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            retraining.retrain(config, lambda *_: fail(last))
    elif isinstance(last, Exception):
        retraining.retrain(config, lambda *_: fail(last))
    elif last is not None:
        retraining.retrain(config, lambda *_: last)
    rules = []

    def run(given, _):
        rules.append(given)
        return finished()

    retraining.retrain(config, run)
    assert rules == [rule]


def attempt(outcome, drift=(), published=(), **data):
    return attempts.Attempt(
        id=f"{outcome}-{len(data)}",
        started_at="2026-02-01",
        config_sha256="0",
        outcome=outcome,
        drift=dict(drift),
        published=dict(published),
        data=data,
    )


@pytest.mark.parametrize(
    ("earlier", "cold", "warm"),
    [
        ([], set(), set()),
        # Equal data give equal models.
        ([attempt("refused", flood="3.1")], {("flood", "3.1")}, {("flood", "3.1")}),
        # A warm start would begin from the encoder that the attempt published.
        ([attempt("refused", published={"encoder": 2}, flood="3.1")], {("flood", "3.1")}, set()),
        # These were not trained on to the end.
        ([attempt("failed", flood="3.1"), attempt("nothing_new", flood="3.1")], set(), set()),
        # Drift of one version starts one training, also if that was killed.
        (
            [attempt("unfinished", {"pairs": "3.1"}, flood="3.1", pairs="3.1")],
            {("pairs", "3.1")},
            {("pairs", "3.1")},
        ),
        (
            [attempt("refused", {"flood": "3.1"}, {"encoder": 2}, flood="3.1")],
            {("flood", "3.1")},
            {("flood", "3.1")},
        ),
    ],
)
def test_no_data_start_a_second_training_that_would_be_the_same(earlier, cold, warm):
    assert attempts.tried(earlier, (), warm_start=False) == cold
    assert attempts.tried(earlier, (), warm_start=True) == warm


def test_data_that_were_put_back_were_not_trained_on_by_the_attempt_that_refused_them():
    refused = attempt("refused", pairs="2.1", flood="2.1")
    accepted = {("pairs", "2.1")}
    assert attempts.tried([refused], accepted, warm_start=False) == {("flood", "2.1")}
    # They start one training, too.
    again = attempt("refused", {"pairs": "2.1"})
    assert attempts.tried([refused, again], accepted, warm_start=False) == {
        ("flood", "2.1"),
        ("pairs", "2.1"),
    }


def test_later_runs_on_the_same_data_know_the_training_that_drift_started():
    newest = {"pairs": "3.1", "flood": "4.1"}
    assert attempts.restart([attempt("published", pairs="3.1")], newest) == ""
    own = attempt("refused", {"flood": "4.1"}, flood="4.1")
    other = attempt("refused", {"flood": "3.1"})
    assert attempts.restart([own, other], newest) == own.id
    # Other data are another training anyway.
    assert attempts.restart([own, other], {**newest, "flood": "5.1"}) == ""


def test_drift_is_recorded_before_its_training_and_starts_one(config, monkeypatch):
    seen = []

    def find_drifted(given, tried, stage):
        seen.append(tried)
        return [] if tried else [Drifted(report=report, limit=0.5)]

    report = DriftReport(
        data="flood",
        span=3,
        version=1,
        reference="serving/flood/1",
        reference_span="2.1",
        outcome="accepted",
    )
    monkeypatch.setattr(drift, "find_drifted", find_drifted)

    def killed(_, find_drift):
        assert find_drift(lambda _: None) == [
            "flood: no scene is new, but no published model was trained on 3.1, and "
            "drift.accept_spans names it"
        ]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retraining.retrain(config, killed)
    (left,) = attempts.read_attempts(config.root)
    assert (left.outcome, left.drift) == ("unfinished", {"flood": "3.1"})
    found = history.read_history(config.serving_dir, [], [left])
    assert "\nby drift of flood 3.1</td>" in history.page(found, "title")

    def idle(_, find_drift):
        assert find_drift(lambda _: None) == []
        raise NothingNewError("none", "nothing_new")

    assert retraining.retrain(config, idle).attempt.drift == {}
    assert seen == [set(), {("flood", "3.1")}]


def test_an_attempt_that_was_killed_stands_in_the_history_as_one(config):
    # As after SIGKILL, nothing is written: the drill kills processes.
    with pytest.raises(KeyboardInterrupt):
        retraining.retrain(config, lambda *_: fail(KeyboardInterrupt()))
    (left,) = attempts.read_attempts(config.root)
    assert (left.outcome, left.exit_code, left.ended_at) == ("unfinished", None, "")
    found = history.read_history(config.serving_dir, [], [left])
    assert "<td>killed, or still at work</td>" in history.page(found, "title")

    retraining.retrain(config, lambda *_: finished(ExitCode.REFUSED, "worse <by> half"))
    found = history.read_history(config.serving_dir, [], attempts.read_attempts(config.root))
    assert [(one["outcome"], one["exit_code"]) for one in history.document(found)["attempts"]] == [
        ("unfinished", None),
        ("refused", 4),
    ]
    page = history.page(found, "title")
    assert "<td>killed</td>" in page
    assert "refused (exit code 4)" in page
    assert "worse &lt;by&gt; half" in page


def test_a_folder_without_attempts_has_no_table_of_them(config):
    empty = history.read_history(config.serving_dir, [])
    assert "Attempts" not in history.page(empty, "title")


def test_a_damaged_record_is_one_line_with_the_cure(config):
    os.makedirs(config.root)
    with open(f"{config.root}/{RECORD_NAME}", "w") as file:
        file.write('{"id": 3}\n')
    with pytest.raises(DamagedFileError, match=f"{RECORD_NAME}: .*move it aside"):
        retraining.retrain(config, lambda *_: finished())


def test_the_message_holds_the_attempt(config):
    attempt = retraining.retrain(config, lambda *_: finished()).attempt
    message = retraining.message(config, attempt)
    assert (message.id, message.event) == (attempt.id, "unchanged")
    assert json.loads(message.body)["attempt"]["ended_at"] == attempt.ended_at
    assert json.loads(message.body)["run"] == "terrapair-smoke"


def test_the_verb_records_and_tells_a_missing_catalog(config, tmp_path, capsys):
    told = tmp_path / "told.json"
    hook = f"notify={{command: [sh, -c, 'cat > {told}']}}"
    arguments = [
        *("retrain", "--config", "smoke", "--set", f"root={config.root}"),
        *("--set", f"catalogs=[{{layout: stac, path: {tmp_path / 'none.ndjson'}}}]"),
        *("--set", hook),
    ]
    assert program.run(arguments) == ExitCode.BAD_DATA
    (line,) = capsys.readouterr().err.splitlines()
    assert "none.ndjson" in line
    (attempt,) = attempts.read_attempts(config.root)
    assert (attempt.outcome, attempt.exit_code) == ("failed", 3)
    assert json.loads(told.read_text())["attempt"]["reasons"] == list(attempt.reasons)


def test_a_hook_that_fails_is_one_warning_and_changes_no_exit_code(config, tmp_path, capsys):
    arguments = [
        *("retrain", "--quiet", "--config", "smoke", "--set", f"root={config.root}"),
        *("--set", f"catalogs=[{{layout: stac, path: {tmp_path / 'none.ndjson'}}}]"),
        *("--set", "notify={command: [sh, -c, 'exit 9']}"),
    ]
    assert program.run(arguments) == ExitCode.BAD_DATA
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == "warning: notify.command: sh was not told: exit code 9"
    assert error.startswith("error: ")


@pytest.mark.parametrize("verb", ["run", "retrain"])
def test_a_serving_folder_that_cannot_be_written_ends_before_anything_is_built(
    config, capsys, verb
):
    os.makedirs(config.root)
    with open(config.serving_dir, "w") as file:
        file.write("a file in the place of the folder")
    code = program.run([verb, "--config", "smoke", "--set", f"root={config.root}"])
    assert code == ExitCode.CRASH
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {config.serving_dir}: must be writable, so that models can be")
    assert not os.path.exists(f"{config.root}/data")
    assert [one.exit_code for one in attempts.read_attempts(config.root)] == (
        [1] if verb == "retrain" else []
    )


def test_of_two_at_once_one_leaves_and_records_nothing(config, capsys):
    with locks.hold(f"{config.root}/{root.LOCK_NAME}", "the first"):
        code = program.run(["retrain", "--config", "smoke", "--set", f"root={config.root}"])
    assert code == ExitCode.CRASH
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {config.root}: another job is working there (process ")
    assert attempts.read_attempts(config.root) == []


def test_of_two_machines_at_one_store_one_leaves_and_records_nothing(s3_folder, tmp_path, capsys):
    lock = f"{s3_folder}/{root.LOCK_NAME}"
    roots = ("--set", f"root={s3_folder}", "--set", f"local_root={tmp_path}")
    with locks.hold(lock, "the first"):
        code = program.run(["retrain", "--config", "smoke", *roots])
    assert code == ExitCode.CRASH
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {lock}: another job is writing into this folder; wait for it"
    assert attempts.read_attempts(s3_folder) == []


def test_the_record_on_a_store_tells_a_kill_and_the_next_attempt_goes_on(
    config, s3_folder, tmp_path
):
    config = dataclasses.replace(config, root=s3_folder, local_root=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        retraining.retrain(config, lambda *_: fail(KeyboardInterrupt()))
    rules = []

    def refuse(rule, _):
        rules.append(rule)
        raise RefusedError("odd")

    retraining.retrain(config, refuse)
    retraining.retrain(config, lambda rule, _: rules.append(rule) or finished())
    assert rules == ["new_or_newest", "new"]
    read = attempts.read_attempts(s3_folder)
    assert [one.outcome for one in read] == ["unfinished", "refused", "unchanged"]


def test_a_webhook_without_a_secret_is_refused_before_any_work(config, monkeypatch, capsys):
    monkeypatch.delenv("TERRAPAIR_WEBHOOK_SECRET", raising=False)
    webhook = ["--set", "notify={webhook: https://host/x}"]
    code = program.run(["retrain", "--config", "smoke", "--set", f"root={config.root}", *webhook])
    assert code == ExitCode.USAGE
    assert "TERRAPAIR_WEBHOOK_SECRET: must be set" in capsys.readouterr().err
    assert not os.path.exists(config.root)
