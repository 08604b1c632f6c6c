"""The files of deploy/: schedulers and Beam accept them, and they call the program as it is."""

import configparser
import contextlib
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
import yaml
from apache_beam.options.pipeline_options import PortableOptions, StandardOptions

from beam_jobs import runner
from beam_jobs.contracts.errors import ExitCode
from beam_jobs.terminal import program
from pipeline.config import load_run_config
from tests.data.runs.repository import REPOSITORY
from tests.data.servers import kubernetes_schema
from tests.drills import cronjob

DEPLOY = REPOSITORY / "deploy"
SERVICE = DEPLOY / "systemd" / "terrapair-retrain.service"
TIMER = DEPLOY / "systemd" / "terrapair-retrain.timer"
CRON = DEPLOY / "cron" / "terrapair-retrain"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "retrain.yaml").read_text()))
(CONFIG_MAP, CLAIM, CRON_JOB) = MANIFESTS
POD = CRON_JOB["spec"]["jobTemplate"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PERMANENT = [ExitCode.USAGE, ExitCode.BAD_DATA]
"""Exit codes of failures that another attempt would have again."""
RESULTS = [ExitCode.REFUSED, ExitCode.NOTHING_NEW]
"""Exit codes that are no failures: nobody is called, and nothing is repeated."""


def unit(path):
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str
    parser.read(path)
    return parser


def retrain_lines():
    cron_line = CRON.read_text().splitlines()[-1]
    (in_pod,) = [line for line in CONTAINER["args"][0].splitlines() if " retrain " in line]
    return {
        "systemd": unit(SERVICE)["Service"]["ExecStart"],
        "cron": cron_line.rpartition("&& ")[2],
        "kubernetes": in_pod,
    }


@pytest.mark.parametrize("scheduler", ["systemd", "cron", "kubernetes"])
def test_click_accepts_the_command(scheduler):
    name, verb, *arguments = shlex.split(retrain_lines()[scheduler])
    assert name.rpartition("/")[2] == "terrapair"
    command = program.group.get_command(click.Context(program.group), verb)
    command.make_context(verb, arguments, resilient_parsing=False)


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
def test_the_api_server_would_accept_the_manifest(manifest):
    assert kubernetes_schema.complaints(manifest) == []


def test_the_settings_in_the_config_map_are_those_of_a_run(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG_MAP["data"]["run.yaml"])
    config = load_run_config(path, [], {})
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert any(config.root.startswith(f"{mount}/") for mount in mounts)


def test_the_pod_is_that_of_the_image():
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE)
    assert POD["securityContext"]["runAsUser"] == int(user)
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    # What the image writes outside the run goes below HOME.
    (home,) = re.findall(r"\bHOME=(\S+)", dockerfile)
    writable = {mount["mountPath"] for mount in CONTAINER["volumeMounts"] if len(mount) == 2}
    assert home in writable
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {
        volume["name"] for volume in POD["volumes"]
    }
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert volumes["settings"]["configMap"]["name"] == CONFIG_MAP["metadata"]["name"]
    claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
    assert claim == CLAIM["metadata"]["name"]


def test_two_pods_never_work_at_once_and_a_lost_one_is_replaced():
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"
    job = CRON_JOB["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] > 0
    assert POD["restartPolicy"] == "Never"
    (codes,) = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"][1:]]
    assert codes["values"] == PERMANENT
    assert codes["containerName"] == CONTAINER["name"]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 137])
def test_the_shell_of_the_pod_passes_the_exit_codes_of_failures(code, tmp_path):
    fake = tmp_path / "terrapair"
    fake.write_text(f"#!/bin/sh\nexit {code}\n")
    fake.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(
        [*CONTAINER["command"], *CONTAINER["args"]], env={"PATH": path}, check=False
    )
    assert ended.returncode == (0 if code in RESULTS else code)


def test_systemd_takes_results_for_successes_and_repeats_what_may_pass():
    service = unit(SERVICE)["Service"]
    assert service["SuccessExitStatus"].split() == [str(int(code)) for code in RESULTS]
    assert service["RestartPreventExitStatus"].split() == [str(int(code)) for code in PERMANENT]
    assert unit(TIMER)["Timer"]["Persistent"] == "true"
    assert TIMER.stem == SERVICE.stem


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_units(tmp_path):
    # It also looks whether the program is there, which it is not on this machine.
    text = SERVICE.read_text().replace("/opt/terrapair/bin/terrapair", "/bin/true")
    (tmp_path / SERVICE.name).write_text(text)
    (tmp_path / TIMER.name).write_text(TIMER.read_text())
    checked = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_cron_gets_five_fields_a_user_and_no_percent_sign():
    line = CRON.read_text().splitlines()[-1]
    fields = line.split()
    ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    for field, (least, most) in zip(fields, ranges, strict=False):
        assert field == "*" or least <= int(field) <= most
    assert fields[5] == unit(SERVICE)["Service"]["User"]
    # cron takes it for the end of the line.
    assert "%" not in line


@pytest.mark.parametrize("host_path", ["", "/srv/drill"])
def test_the_drill_runs_what_deploy_says(host_path, tmp_path):
    node = cronjob.Node(image="a:1", pull_policy="Never", host_path=host_path, host_network=True)
    documents = cronjob.overlay(MANIFESTS, node)
    assert [kubernetes_schema.complaints(one) for one in documents] == [[]] * len(documents)
    settings, *_, job = documents
    (tmp_path / "run.yaml").write_text(settings["data"]["run.yaml"])
    assert load_run_config(tmp_path / "run.yaml", [], {}).root.startswith("/data/")
    # The rules of the schedule, of failures, and of rights stay as they are.
    changed = copy.deepcopy(CRON_JOB)
    changed["spec"]["schedule"] = job["spec"]["schedule"]
    pod = changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod["hostNetwork"] = True
    replaced = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    for key in ("image", "imagePullPolicy", "resources"):
        pod["containers"][0][key] = replaced[key]
    assert job == changed


@pytest.mark.parametrize("engine", ["flink", "spark", "dataflow"])
def test_beam_knows_every_option_of_the_files(engine):
    options = runner.pipeline_options(1, [f"@{DEPLOY / engine / 'options.txt'}"])
    known = options.get_all_options(drop_default=True)
    unknown = options.get_all_options(drop_default=True, retain_unknown_options=True)
    assert known == unknown
    assert known["runner"] == f"{engine.title()}Runner"
    if engine != "dataflow":
        command = json.loads(options.view_as(PortableOptions).environment_config)["command"]
        assert os.access(DEPLOY / command, os.X_OK)
        assert int(options.view_as(PortableOptions).environment_cache_millis) > 0
    assert options.view_as(StandardOptions).streaming is False


def test_the_worker_of_deploy_becomes_ours(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    ended = subprocess.run(
        [DEPLOY / "terrapair-worker", "--id=1-1", "--provision_endpoint=localhost:1"],
        env={"PATH": os.environ["PATH"], "TERRAPAIR_PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == [
        "-m",
        "beam_jobs.worker",
        "--id=1-1",
        "--provision_endpoint=localhost:1",
    ]


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_a_cluster_needs_java_and_says_so(engine, tmp_path):
    # The shell and its tools, but no Java.
    for name in ("bash", "dirname", "env", "realpath"):
        (tmp_path / name).symlink_to(shutil.which(name))
    ended = subprocess.run(
        [DEPLOY / engine / "cluster.sh", "up", tmp_path / "state"],
        env={"PATH": str(tmp_path), f"{engine.upper()}_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"error: java is missing: install Java 11 or 17 \(.*\)\n", ended.stderr)


def test_flinks_cluster_restarts_jobs_and_keeps_slots_for_them():
    config = yaml.safe_load((DEPLOY / "flink" / "config.yaml").read_text())
    strategy = config["restart-strategy"]
    assert strategy["type"] == "fixed-delay"
    # Otherwise a lost TaskManager costs several attempts: Flink sees it by heartbeats, in ms.
    delay, unit = strategy["fixed-delay"]["delay"].split()
    assert (unit, int(delay) * 1000 > 2 * config["heartbeat"]["interval"]) == ("s", True)
    options = runner.pipeline_options(1, [f"@{DEPLOY / 'flink' / 'options.txt'}"])
    # One TaskManager alone can run the job.
    assert config["taskmanager"]["numberOfTaskSlots"] >= options.get_all_options()["parallelism"]


def test_the_tests_on_clusters_say_in_one_line_that_java_is_missing(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "tests.engines"],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(
        r"error: the tests on Flink and Spark need 'java', .*: apt-get install \S+\n", ended.stderr
    )


def test_the_drill_has_all_steps():
    from tests.engines import __main__, drill

    assert tuple(drill.STEPS) == __main__.STEPS


def test_a_step_of_the_drill_that_fails_is_named_after_the_others_were_taken(
    tmp_path, monkeypatch, capsys
):
    from tests.engines import clusters, drill, jobs

    taken = []

    def take(bench, _):
        taken.append((bench.engine, bench.step))
        if taken[-1] == ("flink", "kills"):
            raise jobs.DifferenceError("1 file differs")

    emulator = contextlib.nullcontext(SimpleNamespace(environment={}))
    monkeypatch.setattr(clusters, "find_tools", lambda *_: None)
    monkeypatch.setattr(jobs, "make_inputs", lambda folder: (folder, folder, folder))
    monkeypatch.setattr(drill.server, "running", lambda *_: emulator)
    monkeypatch.setattr(drill, "_take", take)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "")
    with pytest.raises(drill.StepError, match=r"1 of 4 steps failed: flink --steps kills$"):
        drill.run(["flink", "spark"], ["kills", "fetch"], tmp_path, tmp_path)
    assert taken == [(engine, step) for engine in ("flink", "spark") for step in ("kills", "fetch")]
    said = json.loads(capsys.readouterr().out)
    assert said == {"engine": "flink", "step": "kills", "failed": "1 file differs"}
