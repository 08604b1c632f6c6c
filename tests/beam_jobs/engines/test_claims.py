"""Claims: the workers of an older run stop, and the next run cancels its job."""

import logging
from types import SimpleNamespace

import pytest

from beam_jobs.build import transforms, writers
from beam_jobs.config import BuildConfig
from beam_jobs.engines import claims, running
from beam_jobs.errors import DataError
from beam_jobs.predict import graph
from beam_jobs.runner import pipeline_options
from beam_jobs.storage import files
from tests.data.servers.flink_server import FlinkServer


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> str:
    return f"{tmp_path}/data" if request.param == "local" else request.getfixturevalue("s3_folder")


def test_a_worker_stops_when_another_run_takes_the_folder_or_its_own_has_ended(folder):
    first = claims.take(folder)
    first.check()
    second = claims.take(folder)
    second.check()
    with pytest.raises(DataError, match="another run has taken the place") as caught:
        first.check()
    assert (caught.value.reason, caught.value.exit_code) == ("orphaned", 1)
    claims.drop(folder)
    with pytest.raises(DataError, match="has ended"):
        second.check()


def test_a_claim_that_is_no_claim_belongs_to_nobody(tmp_path):
    for text in ("", "[]", "{}", '{"folder": 1, "owner": 2}'):
        (tmp_path / claims.CLAIM_NAME).write_text(text)
        assert claims.read(str(tmp_path)) is None
    running.stop_last(str(tmp_path))


def test_the_next_run_cancels_the_flink_job_of_a_killed_one(tmp_path, caplog):
    with FlinkServer() as flink:
        options = pipeline_options(
            1, ["--runner=FlinkRunner", f"--flink_master=localhost:{flink.port}"]
        )
        old = running.take(str(tmp_path), options)
        flink.jobs = {
            "a": [old.job_name, "RUNNING"],
            "b": ["of somebody else", "RUNNING"],
            "c": [old.job_name, "FAILED"],
        }
        running.stop_last(str(tmp_path))
        assert {job: state for job, (_, state) in flink.jobs.items()} == {
            "a": "CANCELED",
            "b": "RUNNING",
            "c": "FAILED",
        }
        assert f"cancelled the job {old.job_name}" in caplog.text
        caplog.clear()
        running.stop_last(str(tmp_path))
        assert caplog.text == ""


def test_a_job_that_does_not_end_keeps_the_next_run_from_writing(tmp_path, monkeypatch):
    monkeypatch.setattr("beam_jobs.engines.flink._CANCEL_SECONDS", 0.0)
    with FlinkServer() as flink:
        claim = claims.take(str(tmp_path), f"http://localhost:{flink.port}")
        flink.jobs = {"a": [claim.job_name, "RUNNING"]}
        flink.obeys = False
        with pytest.raises(DataError, match=r"the Flink job a at .* still runs") as caught:
            running.stop_last(str(tmp_path))
    assert caught.value.reason == "folder_in_use"


def test_a_cluster_that_is_gone_does_not_keep_the_next_run_from_working(tmp_path, caplog):
    with FlinkServer() as flink:
        claim = claims.take(str(tmp_path), f"http://localhost:{flink.port}")
    with caplog.at_level(logging.WARNING):
        running.stop_last(str(tmp_path))
    assert "fails at its next write" in caplog.text
    with pytest.raises(DataError, match="has ended"):
        claim.check()


def test_a_pipeline_that_is_broken_off_cancels_its_job(tmp_path):
    with FlinkServer() as flink:
        claim = claims.take(str(tmp_path), f"http://localhost:{flink.port}")
        flink.jobs = {"a": [claim.job_name, "RUNNING"]}
        with (
            pytest.raises(KeyboardInterrupt),
            running.pipeline(pipeline_options(1), claim),
        ):
            raise KeyboardInterrupt
        assert flink.jobs["a"][1] == "CANCELED"


@pytest.mark.parametrize(
    "step",
    [
        lambda claim: transforms._cut((None, []), BuildConfig(), claim.folder, claim),
        lambda claim: writers._write_shard(("train/part-0", []), claim.folder, claim),
        lambda claim: writers.write_summary(writers.Summary(), claim.folder, claim),
        lambda claim: graph._predict(("part", []), SimpleNamespace(claim=claim)),
        lambda claim: graph._write(((("map", ""), ()), []), SimpleNamespace(claim=claim)),
        lambda claim: list(graph._publish((("map", ""), []), SimpleNamespace(claim=claim))),
    ],
    ids=["cut", "shard", "summary", "part", "files", "map"],
)
def test_each_step_of_an_older_run_stops_before_it_writes(step, tmp_path):
    older = claims.take(str(tmp_path))
    claims.take(str(tmp_path))
    before = files.list_files(str(tmp_path))
    with pytest.raises(DataError, match="another run has taken the place"):
        step(older)
    assert files.list_files(str(tmp_path)) == before
