"""Nodes that are launched one at a time: caching, retries, refusals, kills, a lost database."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_metadata import metadata_store, proto

from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from models.publishing.store import UnwritableError
from pipeline.config import RunConfig, load_text
from pipeline.metadata_store import Database, check_place, connection_config
from pipeline.report.run_record import read_last_run
from pipeline.runners.data_jobs import data_jobs
from pipeline.runners.node_record import RunFolder
from pipeline.runners.one_node import Hearing, begin_run, end_run, run_node
from tests.data.runs import tiny_pipeline
from tests.data.runs.repository import REPOSITORY
from tests.data.servers import maria_db
from tests.data.shards import make_shards

ORDER = ("Make", "Judge", "Use")
SILENT = Hearing(on_step=lambda *_: None, on_notice=lambda *_: None)


def run_all(root, run_id):
    """Each node as a process would: the pipeline is compiled anew. Node -> record."""
    folder = RunFolder(str(root), run_id)
    return {
        node: run_node(tiny_pipeline.nodes(root, run_id), folder, node, SILENT) for node in ORDER
    }


def outcomes(records):
    return {node: record.outcome for node, record in records.items()}


def executions(place, run_id):
    """(node, state) of the executions of a run."""
    store = metadata_store.MetadataStore(connection_config(place))
    (run,) = [one for one in store.get_contexts_by_type("pipeline_run") if one.name == run_id]
    state = proto.Execution.State.Name
    return sorted(
        (store.get_execution_types_by_id([one.type_id])[0].name.split(".")[-1],
         state(one.last_known_state))
        for one in store.get_executions_by_context(run.id)
    )  # fmt: skip


def test_a_second_run_is_cached_and_a_second_call_changes_nothing(tmp_path):
    first = run_all(tmp_path, "one")
    assert outcomes(first) == dict.fromkeys(ORDER, "done")
    # TFX alone takes this much.
    assert all(100.0 < record.peak_mib < 100_000.0 for record in first.values())
    before = executions(tmp_path / "metadata.sqlite", "one")
    assert before == [("Judge", "COMPLETE"), ("Make", "COMPLETE"), ("Use", "COMPLETE")]
    again = run_all(tmp_path, "one")
    assert outcomes(again) == outcomes(first)
    assert executions(tmp_path / "metadata.sqlite", "one") == before
    second = run_all(tmp_path, "two")
    assert outcomes(second) == dict.fromkeys(ORDER, "cached")
    assert (tmp_path / "makes").read_text() == "x"
    record = read_last_run(tmp_path / "metadata.sqlite", "tiny", "one")
    assert [one.is_cached for one in record.components] == [False] * 3


def test_an_output_that_lost_files_is_made_again_also_after_a_cached_run(tmp_path):
    run_all(tmp_path, "one")
    run_all(tmp_path, "two")
    record = read_last_run(tmp_path / "metadata.sqlite", "tiny")
    Path(record.output("Make", "made").uri, "made").unlink()
    third = run_all(tmp_path, "three")
    assert third["Make"].outcome == "done"
    assert (tmp_path / "makes").read_text() == "xx"


def test_a_refusal_is_a_result_that_later_nodes_are_skipped_for(tmp_path):
    (tmp_path / "refuse").write_text("x")
    records = run_all(tmp_path, "one")
    assert outcomes(records) == {"Make": "done", "Judge": "refused", "Use": "skipped"}
    assert records["Judge"].exit_code == 4
    assert records["Use"].origin == "Judge"
    assert records["Use"].reason == "the data are too cloudy"
    assert RunFolder(str(tmp_path), "one").read("Use") == dataclasses.replace(
        records["Use"], ended_at=RunFolder(str(tmp_path), "one").read("Use").ended_at
    )
    # In MLMD the node that was skipped has no execution.
    assert executions(tmp_path / "metadata.sqlite", "one") == [
        ("Judge", "FAILED"),
        ("Make", "COMPLETE"),
    ]
    # The cause is gone: the same run goes on.
    assert outcomes(run_all(tmp_path, "one")) == dict.fromkeys(ORDER, "done")


def test_transient_faults_are_retried_and_then_raised(tmp_path):
    (tmp_path / "break").write_text("xx")
    lines = []
    assert tiny_pipeline.nodes(tmp_path, "one", on_line=lines.append).launch("Make") == "done"
    assert (tmp_path / "makes").read_text() == "xxx"
    assert [line.split("; ")[-1] for line in lines] == [
        "retry 1 of 3 in 0.01 s",
        "retry 2 of 3 in 0.01 s",
    ]
    assert executions(tmp_path / "metadata.sqlite", "one") == [("Make", "COMPLETE")]
    (tmp_path / "break").write_text("xxxxx")
    (tmp_path / "tfx").rename(tmp_path / "lost")
    folder = RunFolder(str(tmp_path), "two")
    with pytest.raises(ConnectionResetError):
        run_node(tiny_pipeline.nodes(tmp_path, "two"), folder, "Make", SILENT)
    assert folder.read("Make").outcome == "failed"
    with pytest.raises(SettingsError, match=r"Judge: Make comes before it and failed \(the store"):
        run_node(tiny_pipeline.nodes(tmp_path, "two"), folder, "Judge", SILENT)


def test_one_worker_of_several_does_not_try_again_alone(tmp_path, monkeypatch):
    (tmp_path / "break").write_text("xx")
    hosts = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(hosts))
    lines = []
    with pytest.raises(ConnectionResetError):
        tiny_pipeline.nodes(tmp_path, "one", on_line=lines.append).launch("Make")
    assert lines == []
    # All of them were started again.
    monkeypatch.delenv("TF_CONFIG")
    (tmp_path / "break").unlink()
    assert tiny_pipeline.nodes(tmp_path, "one").launch("Make") == "done"


def test_other_faults_are_raised_at_once(tmp_path):
    (tmp_path / "crash").write_text("xx")
    nodes, folder = tiny_pipeline.nodes(tmp_path, "one"), RunFolder(str(tmp_path), "one")
    run_node(nodes, folder, "Make", SILENT)
    with pytest.raises(KeyError):
        run_node(nodes, folder, "Judge", SILENT)
    assert (tmp_path / "crash").read_text() == "x"


def test_a_node_waits_for_those_before_it_and_for_its_own_process(tmp_path):
    nodes, folder = tiny_pipeline.nodes(tmp_path, "one"), RunFolder(str(tmp_path), "one")
    with pytest.raises(SettingsError, match=r"Use: Judge comes before it and has not ended in run"):
        run_node(nodes, folder, "Use", SILENT)
    with pytest.raises(SettingsError, match=r"--node: the run has no node 'Trainer'; it has begin"):
        run_node(nodes, folder, "Trainer", SILENT)
    # Without our record, ML Metadata knows the inputs are not there.
    with pytest.raises(DataError, match=r"Judge: its inputs are not in ML Metadata: .*, Make"):
        nodes.launch("Judge")
    with pytest.raises(SettingsError, match=r"--run-id: must be up to 100 letters.* got '\.\./x'"):
        RunFolder(str(tmp_path), "../x")


@pytest.mark.e2e
def test_a_killed_node_leaves_one_execution_that_the_next_try_ends(tmp_path):
    (tmp_path / "kill").write_text("x")
    killed = subprocess.run(
        [sys.executable, "-m", tiny_pipeline.__name__, str(tmp_path), "one", "Make"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    place = tmp_path / "metadata.sqlite"
    assert executions(place, "one") == [("Make", "RUNNING")]
    assert len(list((tmp_path / "tfx").rglob("half"))) == 1
    # A run that ends here leaves nothing open, and may go on all the same.
    nodes = tiny_pipeline.nodes(tmp_path, "one")
    assert (nodes.close_unfinished(), nodes.close_unfinished()) == (1, 0)
    assert executions(place, "one") == [("Make", "FAILED")]
    assert outcomes(run_all(tmp_path, "one")) == dict.fromkeys(ORDER, "done")
    assert [state for _, state in executions(place, "one")] == ["COMPLETE"] * 3
    assert not list((tmp_path / "tfx").rglob("half"))
    used = read_last_run(place, "tiny").output("Use", "used")
    assert Path(used.uri, "used").read_text() == "made"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with maria_db.running(tmp_path_factory.mktemp("mariadb")) as found:
        yield found


def test_nodes_keep_their_metadata_in_a_real_database(server, tmp_path, caplog):
    place = Database(config=server.config("terrapair_nodes"), password=maria_db.PASSWORD)
    check_place(place, is_written=True)
    with caplog.at_level("DEBUG"):
        for run_id, outcome in (("one", "done"), ("two", "cached")):
            nodes = tiny_pipeline.nodes(tmp_path, run_id, place)
            assert [nodes.launch(node) for node in nodes.ids] == [outcome] * 3
    record = read_last_run(place, "tiny")
    assert (len(record.components), record.num_cached) == (3, 3)
    assert maria_db.PASSWORD not in f"{place!r} {place}"
    # ML Metadata itself logs the password at this level, which no option of ours turns on.
    others = [one for one in caplog.records if one.levelname != "DEBUG"]
    assert others
    assert not [one for one in others if maria_db.PASSWORD in one.getMessage()]


def test_a_database_that_is_lost_while_a_node_works_is_waited_for(server, tmp_path):
    place = Database(config=server.config("terrapair_lost"), password=maria_db.PASSWORD)
    lines = []

    def note(line):
        lines.append(line)
        if len(lines) == 2:
            server.kill()
            server.start()

    (tmp_path / "server").write_text(str(server.pid))
    assert tiny_pipeline.nodes(tmp_path, "one", place, on_line=note).launch("Make") == "done"
    assert len(lines) == 2
    assert "the database cannot be reached (" in lines[1]
    assert "retry 2 of 3" in lines[1]
    # The work was not done a second time.
    assert (tmp_path / "makes").read_text() == "x"
    assert executions(place, "one") == [("Make", "COMPLETE")]
    server.kill()
    try:
        with pytest.raises(RuntimeError, match="the database cannot be reached") as lost:
            tiny_pipeline.nodes(tmp_path, "one", place, on_line=lines.append).launch("Judge")
        assert "\n" not in str(lost.value)
        # The retries around a launch do not multiply those within it.
        assert len(lines) == 2 + tiny_pipeline.QUICK.num_retries
    finally:
        server.start()


def test_a_database_that_refuses_is_told_in_one_line(server, tmp_path):
    wrong = Database(config=server.config(), password="guess")
    with pytest.raises(SettingsError, match="refuses user 'terrapair' or database 'terrapair'"):
        check_place(wrong, is_written=True)
    foreign = Database(config=server.config("mysql"), password=maria_db.PASSWORD)
    with pytest.raises(SettingsError, match="or database 'mysql': check the password in TERRAPAIR"):
        check_place(foreign, is_written=True)


def test_a_run_begins_with_shards_and_keeps_its_settings(values, tmp_path):
    values["tasks"][0]["segment"]["regime"] = "scratch"
    values["catalogs"][0]["path"] = "/items.ndjson"
    values |= {"root": str(tmp_path), "pretrain": None, "data": {"build": False}}
    config = settings.from_dict(RunConfig, values)
    folder = RunFolder(config.root, "one")
    place = config.metadata_path
    with pytest.raises(DataError, match=r"data/flood: holds no version of any span: build it"):
        begin_run(config, place, folder)
    assert folder.read_config() is None
    make_shards.make_version(tmp_path / "data" / "flood", num_patches=4, size_px=16)
    (tmp_path / "serving").write_text("a file in the place of the folder")
    with pytest.raises(UnwritableError, match=r"/serving: must be writable, .* in .*/flood, got:"):
        begin_run(config, place, folder)
    assert folder.read_config() is None
    (tmp_path / "serving").unlink()
    with pytest.raises(DataError, match=r"data/flood: holds no span 2: build it first"):
        begin_run(dataclasses.replace(config, span=2), place, folder)
    begin_run(config, place, folder)
    begin_run(config, place, folder)
    assert load_text(folder.read_config(), "stored", [], {}) == config
    with pytest.raises(SettingsError, match=r"run 'one' was begun with other settings"):
        begin_run(dataclasses.replace(config, verify_hashes=True), place, folder)
    ended = end_run(config, place, folder)
    assert (ended.outcome, ended.exit_code) == ("failed", 1)
    around = [folder.read(name) for name in ("begin", "report")]
    assert [(one.outcome, one.exit_code) for one in around] == [("done", 0), ("failed", 1)]
    assert min(one.peak_mib for one in around) > 100.0
    assert re.match("13 of 13 nodes have not ended: ", ended.reasons[0])


def test_a_run_that_builds_its_data_begins_without_shards(values, tmp_path):
    values["tasks"][0]["segment"]["regime"] = "scratch"
    values["catalogs"][0]["path"] = "/items.ndjson"
    config = settings.from_dict(RunConfig, values | {"root": str(tmp_path), "pretrain": None})
    folder = RunFolder(config.root, "one")
    with pytest.raises(DataError, match=r"data/flood: holds no span 2: build it first"):
        begin_run(dataclasses.replace(config, span=2), config.metadata_path, folder)
    flink = dataclasses.replace(config.data, beam_options=("--runner=FlinkRunner",))
    with pytest.raises(SettingsError, match=r"^data.beam_options: runner FlinkRunner needs the a"):
        begin_run(dataclasses.replace(config, data=flink), config.metadata_path, folder)
    begin_run(config, config.metadata_path, folder)
    nodes = tiny_pipeline.nodes(tmp_path, "one")
    jobs = tuple(data_jobs(config))
    assert jobs == ("build-labels-flood",)
    with pytest.raises(SettingsError, match=r"it has begin, build-labels-flood, Make, Judge, Use,"):
        run_node(nodes, folder, "build-pairs", SILENT, jobs)
    with pytest.raises(SettingsError, match=r"Make: build-labels-flood comes before it and has no"):
        run_node(nodes, folder, "Make", SILENT, jobs)
    ended = end_run(config, config.metadata_path, folder)
    assert re.match("14 of 14 nodes have not ended: build-labels-flood", ended.reasons[0])
