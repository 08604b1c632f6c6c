"""Data jobs as nodes of a run: versions, months without new scenes, kills, missing input."""

import copy
import dataclasses
import functools
import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import grpc
import pytest

from beam_jobs import config as c
from beam_jobs.build import patches, spool
from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.contracts.locations import DamagedFileError
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.simulation.simulate import simulate
from beam_jobs.storage import leases
from pipeline.config import RunConfig
from pipeline.runners.data_jobs import JobProgress, data_jobs, run_job
from pipeline.runners.node_record import NodeRecord, RunFolder, stopping
from pipeline.runners.recorded import run_recorded
from tests.data.runs.pipeline_values import VALUES
from tests.data.runs.repository import REPOSITORY

PAIRS, LABELS = "build-pairs", "build-labels-flood"
SIMULATED = {"num_places": 4, "num_dates": 1, "size_px": 160, "seed": 5}
SILENT = JobProgress(
    stage=lambda _: nullcontext(), on_progress=lambda *_: None, on_notice=lambda *_: None
)


def run_values(root, catalog, **changes):
    values = copy.deepcopy(VALUES) | {"root": str(root), "catalogs": [catalog], **changes}
    values["pairs"] = {
        "patch": {"size_px": 32},
        "quality": {"min_valid_fraction": 0.05, "max_cloud_fraction": 1.0},
        "split": {"block_size_km": 0.8, "eval_fraction": 0.3, "test_fraction": 0.3},
    }
    values["tasks"][0]["quality"] = None
    return values


def configured(*arguments, **changes):
    return settings.from_dict(RunConfig, run_values(*arguments, **changes))


def jobs_of(config, run_id):
    """Run both data jobs and a node after them; return node -> record."""
    folder = RunFolder(config.root, run_id)
    found = {job: run_job(config, folder, job, SILENT) for job in data_jobs(config)}
    later = run_recorded(
        folder, "Later", tuple(found), lambda begun: dataclasses.replace(begun, outcome="done")
    )
    return {**found, "Later": later}


def outcomes(records):
    return {node: (one.outcome, one.version) for node, one in records.items()}


def publish(config, run_id, records):
    """Write the result of a run as its last task does."""
    nodes = {node: settings.to_dict(one) for node, one in records.items()}
    RunFolder(config.root, run_id).write_result({"outcome": "published", "nodes": nodes})


def without_label(line):
    item = json.loads(line)
    item["assets"].pop("label", None)
    return json.dumps(item)


@pytest.mark.e2e
def test_each_month_trains_on_what_is_new_and_a_month_without_new_scenes_is_skipped(tmp_path):
    catalog = simulate(
        c.SimulateConfig(num_places=3, num_dates=2, size_px=160, seed=5), tmp_path / "scenes"
    )
    by_place: dict[str, list[str]] = {}
    for line in catalog.read_text().splitlines():
        by_place.setdefault(json.loads(line)["properties"]["terrapair:place"], []).append(line)
    dates = [
        [line for lines in by_place.values() for line in lines[start : start + 2]]
        for start in (0, 2)
    ]
    catalog.write_text("\n".join(dates[0]) + "\n")
    config = configured(tmp_path / "run", {"layout": "stac", "path": str(catalog)}, spans="all")
    new = dataclasses.replace(config, data=dataclasses.replace(config.data, new_span=True))

    first = jobs_of(new, "one")
    done, cached = ("done", "1.1"), ("cached", "1.1")
    assert outcomes(first) == {PAIRS: done, LABELS: done, "Later": ("done", "")}
    # The same run asks again, as after a lost pod: what was done stands.
    assert outcomes(jobs_of(new, "one")) == outcomes(first)
    # No run has ended with them, so the next one takes them, also as a new month.
    assert outcomes(jobs_of(new, "two")) == {PAIRS: cached, LABELS: cached, "Later": ("done", "")}
    publish(config, "two", first)
    third = jobs_of(new, "three")
    nothing = ("nothing_new", "1.1")
    assert outcomes(third) == {PAIRS: nothing, LABELS: nothing, "Later": ("skipped", "")}
    assert (third[PAIRS].exit_code, third["Later"].origin) == (5, PAIRS)
    assert "every scene is in an earlier span, or has no partner" in third["Later"].reason
    # Without the setting, the newest span is trained on again.
    assert outcomes(jobs_of(config, "four"))[PAIRS] == cached

    catalog.write_text("\n".join([*dates[0], *map(without_label, dates[1])]) + "\n")
    month = jobs_of(new, "five")
    # Only the pairs are new, which is enough for the run.
    assert outcomes(month) == {PAIRS: ("done", "2.1"), LABELS: nothing, "Later": ("done", "")}
    assert layout.list_versions(config.pairs_dir) == [(1, 1), (2, 1)]
    read = dataclasses.replace(config, span=1, spans=None)
    assert outcomes(jobs_of(read, "six")) == {PAIRS: cached, LABELS: cached, "Later": ("done", "")}


_KILLED = """
import sys
from tests.pipeline.runners import test_data_jobs as t
from pipeline.runners.node_record import RunFolder
config = t.configured(sys.argv[1], {"layout": "simulated", "simulate": t.SIMULATED})
t.run_job(config, RunFolder(config.root, sys.argv[2]), sys.argv[3], t.SILENT)
"""


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_a_pod_that_takes_the_place_of_a_killed_one_cuts_only_what_is_left(
    s3_folder, tmp_path, monkeypatch
):
    """The scenes lie in a folder of each pod, so nothing of it may be in what is kept."""
    arguments = [s3_folder, "one", LABELS]
    process = subprocess.Popen([sys.executable, "-c", _KILLED, *arguments], cwd=REPOSITORY)
    config = configured(s3_folder, {"layout": "simulated", "simulate": SIMULATED})
    root = config.task_dir(config.tasks[0])
    spool_dir = str(layout.building_dir(root, 1, 1) / "spool")
    while spool.count_finished(spool_dir) < 1 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert layout.list_versions(root) == []
    num_finished = spool.count_finished(spool_dir)
    assert 1 <= num_finished < 4
    # The leases of the killed process run out at once, not after 20 s.
    monkeypatch.setattr(leases, "hold", functools.partial(leases.hold, lease_seconds=0.5))
    cut, cut_again = patches.cut, []
    monkeypatch.setattr(
        patches, "cut", lambda task, given: cut_again.append(task.task_id) or cut(task, given)
    )
    record = run_job(config, RunFolder(s3_folder, "one"), LABELS, SILENT)
    assert (record.outcome, record.version) == ("done", "1.1")
    assert len(cut_again) == 4 - num_finished
    here = configured(tmp_path / "here", {"layout": "simulated", "simulate": SIMULATED})
    run_job(here, RunFolder(here.root, "one"), LABELS, SILENT)
    same = [
        manifest.read(layout.version_dir(one.task_dir(one.tasks[0]), 1, 1)).shards
        for one in (config, here)
    ]
    assert same[0] == same[1]
    # A second run finds the whole version.
    again = run_job(config, RunFolder(s3_folder, "two"), LABELS, SILENT)
    assert (again.outcome, again.version) == ("cached", "1.1")


@pytest.mark.e2e
def test_a_catalog_that_is_missing_on_the_store_is_a_result_that_travels(s3_folder):
    config = configured(s3_folder, {"layout": "stac", "path": f"{s3_folder}/no/items.ndjson"})
    records = jobs_of(config, "one")
    assert {one.outcome for one in records.values()} == {"bad_data", "skipped"}
    assert records[PAIRS].exit_code == 3
    assert records["Later"].reason.startswith(f"{s3_folder}/no/items.ndjson: cannot read the cat")


@pytest.mark.parametrize(
    ("catalog", "told"),
    [
        ({"layout": "stac", "path": "/no/items.ndjson"}, "/no/items.ndjson: cannot read the cata"),
        ({"layout": "sen1floods11", "path": "/no/s1f11"}, "/no/s1f11: cannot read the scenes: no"),
    ],
)
def test_a_folder_that_is_missing_in_the_pod_is_a_result_that_travels(tmp_path, catalog, told):
    records = jobs_of(configured(tmp_path, catalog), "one")
    assert (records[LABELS].outcome, records[LABELS].exit_code) == ("bad_data", 3)
    assert records["Later"].outcome == "skipped"
    assert records["Later"].reason.startswith(told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--runner=FlinkRunner"], r"runner FlinkRunner needs .* add --flink_master=HOST:8081"),
        (["--runner=spark"], r"runner spark needs .* add --spark_master_url=spark://HOST:7077"),
        (["--runner=PortableRunner"], r"runner PortableRunner needs .* add --job_endpoint="),
        (["--runner=Flonk"], r"runner 'Flonk' is not known to Beam: use FlinkRunner, Spark"),
        (["--runner=no.such.Runner"], r"runner 'no.such.Runner' is not known to Beam"),
        (["FlinkRunner"], r"Beam options look like --name=value, got 'FlinkRunner'"),
    ],
)
def test_wrong_options_of_beam_end_the_job_with_one_line(tmp_path, options, told):
    catalog = {"layout": "simulated", "simulate": {}}
    config = configured(tmp_path, catalog, data={"beam_options": options})
    with pytest.raises(SettingsError, match=rf"^data.beam_options: {told}") as refused:
        run_job(config, RunFolder(config.root, "one"), PAIRS, SILENT)
    assert "\n" not in str(refused.value)
    record = RunFolder(config.root, "one").read(PAIRS)
    assert (record.outcome, record.exit_code) == ("failed", 2)


def test_the_options_of_a_run_reach_beam(tmp_path):
    catalog = {"layout": "stac", "path": str(tmp_path / "items.ndjson")}
    (tmp_path / "items.ndjson").write_text('{"type": "Feature", "id": "x"}\n')
    options = ["--runner=FlinkRunner", "--job_endpoint=localhost:1", "--job_server_timeout=1"]
    config = configured(tmp_path, catalog, data={"beam_options": options})
    config = dataclasses.replace(config, retries=dataclasses.replace(config.retries, num_retries=0))
    # Nobody listens at the address.
    with pytest.raises(grpc.FutureTimeoutError):
        run_job(config, RunFolder(config.root, "one"), PAIRS, SILENT)


def record(node, outcome, version=""):
    return NodeRecord(node=node, outcome=outcome, began_at="", ended_at="", version=version)


@pytest.mark.parametrize(
    ("records", "stops"),
    [
        ([record("a", "done", "1.1"), record("b", "nothing_new", "1.1")], []),
        ([record("a", "nothing_new", "1.1"), record("b", "nothing_new", "2.1")], ["a", "b"]),
        ([record("a", "done", "1.1"), record("b", "bad_data")], ["b"]),
        ([record("a", "cached", "1.1"), record("b", "refused", "2.1")], ["b"]),
        # Not a data job: what ended as nothing new is missing to those after it.
        ([record("a", "done"), record("b", "nothing_new")], ["b"]),
    ],
)
def test_one_new_data_set_is_enough_and_bad_data_never_are(records, stops):
    assert [one.node for one in stopping(records)] == stops


def test_a_run_that_failed_has_not_used_its_data(tmp_path):
    folder = RunFolder(str(tmp_path), "one")
    assert folder.versions_of_ended_runs(PAIRS) == set()
    for run_id, outcome, version in (("a", "published", "1.1"), ("b", "failed", "2.1")):
        nodes = {PAIRS: settings.to_dict(record(PAIRS, "done", version)), "Trainer": {}}
        RunFolder(str(tmp_path), run_id).write_result({"outcome": outcome, "nodes": nodes})
    assert folder.versions_of_ended_runs(PAIRS) == {"1.1"}
    assert folder.versions_of_ended_runs(LABELS) == set()
    (tmp_path / "runs" / "b" / "result.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"runs/b/result.json: its content is damaged"):
        folder.versions_of_ended_runs(PAIRS)
