"""`submit` and `schedule` over HTTP, against the stand-in, or a real server for what it allows."""

import json
import uuid

import pytest
import yaml

from beam_jobs.contracts.errors import ExitCode
from beam_jobs.terminal import program
from tests.data.servers import certificates, kubeflow_server

needs_stand_in = pytest.mark.skipif(
    bool(kubeflow_server.REAL), reason="needs a server that does as it is told"
)
POLL = ("--poll", "0.01")


@pytest.fixture
def url(server):
    return kubeflow_server.REAL or server.url


@pytest.fixture
def own_file(package_file, tmp_path):
    """Return a pipeline with a name of its own: a real server keeps those of earlier tests."""
    specification = yaml.safe_load(package_file.read_text())
    specification["pipelineInfo"]["name"] = f"small-{uuid.uuid4().hex[:8]}"
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(specification))
    return path


@pytest.fixture
def terrapair(capsys):
    """Run a verb in this process and return its exit code, its stdout and its stderr."""

    def run(*arguments):
        code = program.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def document(terrapair):
    """Run a verb that must end well and return its JSON."""

    def run(*arguments):
        code, out, err = terrapair(*arguments, "--json", "--quiet")
        assert code == ExitCode.DONE, err
        return json.loads(out)

    return run


@pytest.fixture
def error(terrapair):
    """Run a verb that must fail, and return its exit code and its one line."""

    def run(*arguments):
        code, out, err = terrapair(*arguments)
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("error: ")
        return code, line

    return run


def test_a_pipeline_is_uploaded_once_and_each_submit_starts_a_run(
    url, own_file, document, terrapair
):
    arguments = ("submit", "--file", own_file, "--endpoint", url, "--param", "span=3")
    code, out, _ = terrapair(*arguments)
    assert code == ExitCode.DONE
    assert "(uploaded)" in out
    code, out, _ = terrapair(*arguments)
    assert "(on the server before)" in out
    first, second = (document(*arguments)["run_id"] for _ in range(2))
    assert first != second
    own_file.write_text(own_file.read_text() + "# another version\n")
    code, out, _ = terrapair(*arguments)
    assert "(uploaded)" in out
    shown = document("submit", "--run-id", first, "--endpoint", url)
    assert shown["run_id"] == first
    assert shown["page"] == f"{url}/#/runs/details/{first}"


@needs_stand_in
def test_a_run_gets_its_version_its_values_and_its_account(server, own_file, document):
    made = document(
        *("submit", "--file", own_file, "--endpoint", server.url, "--name", "by hand"),
        *("--param", "span=3", "--param", "names=[a]", "--service-account", "trainer"),
    )
    run = server.runs[made["run_id"]]
    (version,) = server.versions.values()
    (experiment,) = server.experiments
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["runtime_config"] == {"parameters": {"span": 3, "names": ["a"]}}
    assert (run["display_name"], run["experiment_id"]) == ("by hand", experiment)
    assert run["service_account"] == "trainer"


@needs_stand_in
@pytest.mark.parametrize(
    ("end", "code", "outcome", "failed"),
    [
        (("SUCCEEDED", {"cut": "SUCCEEDED"}), ExitCode.DONE, "done", []),
        (("FAILED", {"cut": "FAILED"}), ExitCode.CRASH, "failed", ["cut"]),
        (("CANCELED", {}), ExitCode.CRASH, "canceled", []),
    ],
)
def test_waiting_ends_as_the_run_does(server, own_file, terrapair, end, code, outcome, failed):
    server.story = [("PENDING", {}), ("RUNNING", {"cut": "RUNNING"}), end]
    submit = ("submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL)
    ended, out, err = terrapair(*submit)
    assert ended == code
    assert out.splitlines()[-1].startswith(f"Outcome: {outcome}")
    assert "cut: RUNNING" in err
    assert f"run: {end[0]}" in err
    ended, out, _ = terrapair(*submit, "--json", "--quiet")
    found = json.loads(out)
    assert ended == code
    assert (found["outcome"], found["failed"]) == (outcome, failed)


@pytest.fixture
def recorded(server, own_file, tmp_path):
    """Let the runs of a pipeline end with a failed report, and the record that it wrote."""
    root = tmp_path / "root"
    own_file.write_text(own_file.read_text().replace("runs/no-such-run", str(root)))
    server.story = [("RUNNING", {"cut": "RUNNING"}), ("FAILED", {"report": "FAILED"})]
    real_look = server.look_at_run

    def write(document):
        def look(run_id):
            path = root / "runs" / run_id / "result.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(document if isinstance(document, str) else json.dumps(document))
            return real_look(run_id)

        server.look_at_run = look

    return write


@needs_stand_in
@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("refused", ExitCode.REFUSED),
        ("bad data", ExitCode.BAD_DATA),
        ("nothing new", ExitCode.NOTHING_NEW),
        ("failed", ExitCode.CRASH),
    ],
)
def test_a_refused_result_is_told_from_a_failure_with_its_reasons(
    recorded, server, own_file, terrapair, outcome, code
):
    reason = "Evaluator-flood: mean IoU 0.2 is below 0.5 [gate]"
    times = {"began_at": "2026-11-30T10:00:00+00:00", "ended_at": "2026-11-30T10:01:00+00:00"}
    nodes = {
        name: {"node": name, "outcome": "done", "peak_mib": peak, **times}
        for name, peak in (("Trainer-flood", 1204.4), ("begin", 500.0))
    }
    document = {"exit_code": int(code), "outcome": outcome, "reasons": [reason], "nodes": nodes}
    recorded(document)
    ended, out, _ = terrapair(
        "submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL
    )
    assert ended == code
    most, told, line = out.splitlines()[-3:]
    assert most == "Most memory: Trainer-flood, 1204 MiB"
    assert told == reason
    assert line.startswith(f"Outcome: {outcome}")


@needs_stand_in
def test_a_record_that_cannot_be_read_leaves_the_word_of_the_server(
    recorded, server, own_file, terrapair
):
    recorded("{")
    submit = ("submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL)
    code, out, err = terrapair(*submit)
    assert code == ExitCode.CRASH
    assert out.splitlines()[-1] == "Outcome: failed (report)"
    assert "why models are not published cannot be read (" in err
    assert "result.json" in err


@needs_stand_in
def test_another_root_may_be_named(recorded, server, own_file, terrapair, tmp_path):
    recorded({"exit_code": 4, "outcome": "refused", "reasons": []})
    submit = ("submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL)
    assert terrapair(*submit, "--root", tmp_path / "elsewhere")[0] == ExitCode.CRASH
    assert terrapair(*submit, "--root", tmp_path / "root")[0] == ExitCode.REFUSED


@needs_stand_in
def test_a_server_that_restarts_is_waited_for(server, own_file, terrapair):
    server.story = [("RUNNING", {}), ("RUNNING", {}), ("SUCCEEDED", {})]
    real_create = server.create_run

    def create(body):
        # The server goes away as soon as the run is made.
        server.num_faults = 3
        return real_create(body)

    server.create_run = create
    code, out, err = terrapair(
        "submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL
    )
    assert code == ExitCode.DONE
    assert err.count("Kubeflow fails (HTTP 503): no reason given; trying again") == 3
    assert "Outcome: done" in out


@needs_stand_in
def test_a_run_that_takes_too_long_goes_on(server, own_file, terrapair):
    server.story = [("RUNNING", {})]
    submit = ("submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL)
    code, out, err = terrapair(*submit, "--timeout", "0.05")
    assert (code, out) == (ExitCode.CRASH, "")
    assert "the run has not ended within 0.05 s (state RUNNING), and goes on" in err
    (run_id,) = server.runs
    assert run_id in err
    assert [one for one in server.requests if "terminate" in one[1]] == []


def test_a_pipeline_on_the_server_runs_in_its_newest_version(url, own_file, document, error):
    file = ("submit", "--file", own_file, "--endpoint", url)
    document(*file)
    name = yaml.safe_load(own_file.read_text())["pipelineInfo"]["name"]
    on_server = ("submit", "--pipeline", name, "--endpoint", url)
    document(*on_server, "--param", "span=2")
    code, line = error(*on_server, "--param", "spam=2")
    assert code == ExitCode.USAGE
    assert "no such parameter; known: is_new, limits" in line
    code, line = error(*on_server, "--version", "none")
    assert code == ExitCode.USAGE
    assert f"there is no version 'none'; known: '{name}'" in line


@needs_stand_in
def test_the_newest_version_is_taken_unless_another_is_named(server, own_file, document):
    document("submit", "--file", own_file, "--endpoint", server.url)
    own_file.write_text(own_file.read_text() + "# another version\n")
    document("submit", "--file", own_file, "--endpoint", server.url)
    first, second = server.versions.values()
    pipeline = first["display_name"]
    for options, version in (((), second), (("--version", pipeline), first)):
        made = document("submit", "--pipeline", pipeline, *options, "--endpoint", server.url)
        reference = server.runs[made["run_id"]]["pipeline_version_reference"]
        assert reference["pipeline_version_id"] == version["pipeline_version_id"]


def test_an_unknown_experiment_pipeline_or_run_is_named(url, own_file, document, error):
    file = ("submit", "--file", own_file, "--endpoint", url)
    name = f"monthly-{uuid.uuid4().hex[:8]}"
    code, line = error(*file, "--experiment", name)
    assert code == ExitCode.USAGE
    assert f"there is no experiment '{name}'; known: " in line
    assert "--create-experiment" in line
    document(*file, "--experiment", name, "--create-experiment")
    document(*file, "--experiment", name)
    code, line = error("submit", "--pipeline", name, "--endpoint", url)
    assert code == ExitCode.USAGE
    assert f"there is no pipeline '{name}'; known: " in line
    code, line = error("submit", "--run-id", str(uuid.uuid4()), "--endpoint", url)
    assert code == ExitCode.USAGE
    assert "not found" in line


@needs_stand_in
def test_nothing_is_uploaded_for_an_experiment_that_is_misspelled(server, own_file, error):
    error("submit", "--file", own_file, "--endpoint", server.url, "--experiment", "Defualt")
    assert (server.pipelines, server.runs) == ({}, {})


def test_what_the_server_refuses_is_bad_data_with_its_words(url, own_file, error):
    text = own_file.read_text().replace("schemaVersion: 2.1.0", "schemaVersion: 2.0.0")
    own_file.write_text(text)
    code, line = error("submit", "--file", own_file, "--endpoint", url)
    assert code == ExitCode.BAD_DATA
    assert f"Kubeflow refuses {own_file} (HTTP 400): KFP only supports schema version 2.1.0" in line


def test_a_field_that_the_server_does_not_know_is_bad_data(url, own_file, error):
    own_file.write_text(own_file.read_text() + "notAField: 1\n")
    code, line = error("submit", "--file", own_file, "--endpoint", url)
    assert code == ExitCode.BAD_DATA
    assert "(HTTP 400): unknown template format" in line


def test_a_schedule_runs_once_at_a_time_and_catches_nothing_up(
    url, server, own_file, document, error
):
    schedule = ("schedule", "--file", own_file, "--endpoint", url, "--cron", "17 3 5 * *")
    made = document(*schedule)
    assert made["kubeflow_cron"] == "0 17 3 5 * *"
    assert len(made["next"]) == 3
    assert all(date.endswith("-05 03:17 UTC") for date in made["next"])
    # A second one of the same name would run beside it.
    code, line = error(*schedule)
    assert code == ExitCode.USAGE
    assert made["schedule_id"] in line
    replaced = document(*schedule, "--replace", "--param", "span=4")
    assert replaced["removed"] == [made["schedule_id"]]
    if not kubeflow_server.REAL:
        (kept,) = server.recurring.values()
        assert kept["recurring_run_id"] == replaced["schedule_id"]
        assert kept["trigger"] == {"cron_schedule": {"cron": "0 17 3 5 * *"}}
        assert (kept["max_concurrency"], kept["no_catchup"], kept["mode"]) == (1, True, "ENABLE")
        assert kept["runtime_config"] == {"parameters": {"span": 4}}


@needs_stand_in
@pytest.mark.parametrize("state", ["RUNNING", None])
def test_a_schedule_whose_run_goes_on_is_stopped_and_not_removed(
    server, own_file, document, terrapair, state
):
    schedule = ("schedule", "--file", own_file, "--endpoint", server.url, "--cron", "17 3 5 * *")
    first = document(*schedule)["schedule_id"]
    # 60 runs that ended, on two pages; the controller has not seen the newest one yet.
    run = {"experiment_id": server.recurring[first]["experiment_id"], "recurring_run_id": first}
    states = [*(["SUCCEEDED"] * 30), state, *(["SUCCEEDED"] * 30)]
    for number, one in enumerate(states):
        found = run | ({"state": one} if one else {})
        server.runs[str(number)] = found | {"run_id": str(number), "display_name": "one"}
    replaced = document(*schedule, "--replace")
    assert (replaced["removed"], replaced["stopped"]) == ([], [first])
    assert server.recurring[first]["mode"] == "DISABLE"
    server.runs["30"]["state"] = "FAILED"
    code, out, _ = terrapair(*schedule, "--replace")
    assert code == ExitCode.DONE
    assert f"Removed: {first}" in out
    (kept,) = server.recurring.values()
    assert kept["mode"] == "ENABLE"


def test_the_dates_are_shown_without_a_server(own_file, terrapair):
    code, out, _ = terrapair("schedule", "--file", own_file, "--cron", "0 4 29 2 *", "--dry-run")
    assert code == ExitCode.DONE
    assert "Kubeflow's, with seconds: 0 0 4 29 2 *" in out
    dates = out.partition("Next: ")[2].split(", ")
    assert len(dates) == 3
    assert all("-02-29 04:00 UTC" in date for date in dates)


def test_a_cron_that_never_fires_is_refused_before_anything_is_sent(server, own_file, error):
    code, line = error(
        *("schedule", "--file", own_file, "--endpoint", server.url, "--cron", "0 0 30 2 *")
    )
    assert code == ExitCode.USAGE
    assert "bad day-of-month in '0 0 30 2 *'" in line
    assert server.requests == []


@needs_stand_in
@pytest.mark.parametrize(
    ("variable", "content", "wrong"),
    [
        ("TERRAPAIR_KFP_TOKEN", "right", "wrong"),
        ("TERRAPAIR_KFP_TOKEN", "right", ""),
        ("TERRAPAIR_KFP_COOKIE", "session=right", "session=wrong"),
    ],
)
def test_credentials_come_from_the_environment(
    server, own_file, document, error, monkeypatch, variable, content, wrong
):
    attribute = "token" if variable.endswith("TOKEN") else "cookie"
    setattr(server, attribute, content)
    submit = ("submit", "--file", own_file)
    monkeypatch.setenv("TERRAPAIR_KFP_ENDPOINT", server.url)
    monkeypatch.setenv(variable, wrong)
    code, line = error(*submit)
    assert code == ExitCode.USAGE
    assert "set one of TERRAPAIR_KFP_TOKEN" in line or "set TERRAPAIR_KFP_TOKEN" in line
    assert content not in line
    monkeypatch.setenv(variable, content)
    document(*submit)


@needs_stand_in
def test_a_token_in_a_file_is_read_for_each_request(
    server, own_file, document, terrapair, monkeypatch, tmp_path
):
    server.token = "first"
    server.story = [("RUNNING", {}), ("SUCCEEDED", {})]
    file = tmp_path / "token"
    file.write_text("first\n")
    monkeypatch.setenv("TERRAPAIR_KFP_TOKEN_FILE", str(file))
    real_look = server.look_at_run

    def look(run_id):
        # As the kubelet does once an hour.
        server.token = "second"
        file.write_text("second\n")
        return real_look(run_id)

    server.look_at_run = look
    code, out, err = terrapair(
        "submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL
    )
    assert (code, "Outcome: done" in out) == (ExitCode.DONE, True), err
    assert server.token == "second"


@needs_stand_in
def test_an_endpoint_that_answers_html_is_told_so(server, own_file, error):
    server.is_login_page = True
    code, line = error("submit", "--file", own_file, "--endpoint", server.url)
    assert code == ExitCode.USAGE
    assert f"{server.url}: answers with HTML, so this is a login page or not the address" in line


@needs_stand_in
def test_a_login_that_ends_during_the_wait_ends_it(server, own_file, terrapair):
    server.story = [("RUNNING", {})]
    real_look = server.look_at_run

    def look(run_id):
        server.is_login_page = True
        return real_look(run_id)

    server.look_at_run = look
    code, out, err = terrapair(
        "submit", "--file", own_file, "--endpoint", server.url, "--wait", *POLL
    )
    assert (code, out) == (ExitCode.USAGE, "")
    assert "answers with HTML" in err


@needs_stand_in
def test_another_page_of_the_server_is_told_so(server, own_file, error):
    code, line = error("submit", "--file", own_file, "--endpoint", f"{server.url}/elsewhere")
    assert code == ExitCode.USAGE
    assert "answers with HTTP 404" in line


@needs_stand_in
def test_a_server_that_never_answers_is_given_up(server, own_file, error):
    server.seconds = 1.0
    code, line = error(
        *("submit", "--file", own_file, "--endpoint", server.url, "--request-timeout", "0.05")
    )
    assert code == ExitCode.CRASH
    assert f"{server.url}: no answer within 0.05 s" in line


def test_an_address_without_a_server_is_one_line(own_file, error):
    code, line = error("submit", "--file", own_file, "--endpoint", "http://127.0.0.1:1")
    assert code == ExitCode.CRASH
    assert "http://127.0.0.1:1: cannot be reached (Failed to establish a new connection: " in line


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ((), "set TERRAPAIR_KFP_ENDPOINT or --endpoint"),
        (("--endpoint", "kubeflow.example"), "must be an http:// or https:// URL"),
        (("--endpoint", "http://kubeflow.example/#/runs"), "URL without #"),
        (("--endpoint", "http://x", "--ca-file", "none.pem"), "--ca-file: there is no file"),
    ],
)
def test_a_wrong_address_is_found_before_anything_is_sent(own_file, error, endpoint, message):
    code, line = error("submit", "--file", own_file, *endpoint)
    assert code == ExitCode.USAGE
    assert message in line


def test_two_credentials_are_one_too_many(own_file, error, monkeypatch):
    monkeypatch.setenv("TERRAPAIR_KFP_TOKEN", "secret-1")
    monkeypatch.setenv("TERRAPAIR_KFP_COOKIE", "secret-2")
    code, line = error("submit", "--file", own_file, "--endpoint", "http://127.0.0.1:1")
    assert code == ExitCode.USAGE
    assert "set only one of TERRAPAIR_KFP_TOKEN" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("submit",), "name one of --file, --pipeline and --run-id"),
        (("submit", "--pipeline", "a", "--run-id", "b"), "name one of"),
        (("submit", "--run-id", "a", "--version", "b"), "--version belongs to --pipeline"),
        (("schedule", "--cron", "0 4 * * *"), "name either --file or --pipeline"),
        (("schedule", "--pipeline", "a"), "Missing option '--cron'"),
        (("schedule", "--pipeline", "a", "--cron", "0 0 4 * * *"), "got 6"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message, error):
    code, line = error(*arguments)
    assert code == ExitCode.USAGE
    assert message in line


@needs_stand_in
def test_a_certificate_is_trusted_by_its_authority_only(own_file, document, error, tmp_path):
    authority = certificates.make()
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority.authority)
    with kubeflow_server.running(authority) as server:
        submit = ("submit", "--file", own_file, "--endpoint", server.url)
        code, line = error(*submit)
        assert code == ExitCode.USAGE
        assert "no encrypted connection (" in line
        assert "--ca-file" in line
        document(*submit, "--ca-file", trusted)
        document(*submit, "--insecure")
        trusted.write_text("no certificate")
        code, line = error(*submit, "--ca-file", trusted)
        assert code == ExitCode.USAGE
        assert "must hold certificates as PEM" in line


@needs_stand_in
def test_a_server_with_several_users_needs_a_namespace(server, own_file, document, error):
    server.is_multi_user = True
    submit = ("submit", "--file", own_file, "--endpoint", server.url)
    code, line = error(*submit)
    assert code == ExitCode.USAGE
    assert "name your namespace with --namespace" in line
    document(*submit, "--namespace", "team")
