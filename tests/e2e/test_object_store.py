"""Run whole jobs with their files on an object store: a loopback S3 server.

The jobs have a flood task that learns from an optical task, so they also check
distillation.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from beam_jobs.contracts import layout, locations, manifest
from models.drift.reference import find_served
from pipeline.config import RunConfig, load_run_config
from pipeline.report.run_record import RunRecord, read_last_run
from tests.data.runs.repository import REPOSITORY
from tests.data.runs.run_pipeline import run_pipeline, run_pipeline_here

# The second run has a process of its own, and graphs.
pytestmark = pytest.mark.usefixtures("eager_steps")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that has ended, and its record."""

    process: CompletedProcess[str]
    record: RunRecord


@pytest.fixture(scope="module")
def store(s3_environment):
    """Return the URI of an empty folder on the loopback S3 server."""
    from tests.data.servers import s3_server

    return s3_server.new_folder("whole-run")


@pytest.fixture(scope="module")
def config_path(store, tmp_path_factory):
    """Write a config on the store with an optical water task that teaches the flood task.

    It is the smoke run, with the optical task in place of land cover.
    """
    folder = tmp_path_factory.mktemp("object-store")
    values = yaml.safe_load((REPOSITORY / "pipeline/configs/smoke.yaml").read_text())
    (flood,) = [task for task in values["tasks"] if task["use"] == "flood"]
    optical = {**flood, "name": "optical", "segment": {**flood["segment"], "sensors": ["s2"]}}
    student = {**flood, "distill": {"teacher": "optical", "num_steps": 4, "global_batch_size": 8}}
    values |= {
        "root": store,
        "local_root": str(folder / "local"),
        "tasks": [optical, student],
        "probe": {**values["probe"], "task": "optical"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def config(config_path) -> RunConfig:
    return load_run_config(config_path, [], {})


@pytest.fixture(scope="module")
def asked_too_much(config_path):
    """Return options under which the Evaluator refuses the teacher."""
    return ["--config", str(config_path), "--set", "tasks.0.min_mean_iou=1.0"]


@pytest.fixture(scope="module")
def refused(asked_too_much, config, s3_environment) -> Ended:
    process = run_pipeline_here("run", *asked_too_much)
    return Ended(process=process, record=read_last_run(config.metadata_path, config.name))


@pytest.fixture(scope="module")
def report_of_refused(refused, asked_too_much):
    return run_pipeline_here("report", *asked_too_much)


@pytest.fixture(scope="module")
def taught(report_of_refused, config_path, config, s3_environment) -> Ended:
    # The first attempt trains on the span that the refused run built.
    process = run_pipeline("retrain", "--config", str(config_path), **s3_environment)
    return Ended(process=process, record=read_last_run(config.metadata_path, config.name))


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_refused_teacher_stops_the_student(refused, report_of_refused):
    assert refused.process.returncode == 4
    stderr = refused.process.stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: flood: its teacher 'optical' is refused by its Evaluator")
    ran = {item.component_id for item in refused.record.components}
    assert "Pusher-optical" in ran
    assert not {"Trainer-flood", "Evaluator-flood", "Pusher-flood"} & ran
    assert report_of_refused.returncode == 4
    told = "not trained: flood: the run ended at a refused teacher: optical"
    assert told in report_of_refused.stdout


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_blessed_teacher_teaches_the_student_and_is_not_trained_a_second_time(taught, config):
    assert taught.process.returncode == 0, taught.process.stdout + taught.process.stderr
    assert next(
        item for item in taught.record.components if item.component_id == "Trainer-optical"
    ).is_cached
    serving = locations.locate(config.serving_dir)
    (card,) = (serving / "flood").glob("*/assets.extra/model_card.json")
    assert find_served(serving / "flood").data.summary.kind == "labels"
    student = taught.record.output("DistillTrainer-flood", "model").uri
    assert json.loads(card.read_text())["started_from"] == {"s1": f"{student}/Format-Serving"}


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_a_run_on_an_object_store_publishes_models_there_and_ends_with_zero(
    taught, config, config_path, store, s3_environment
):
    import tensorflow as tf

    ended, record = taught.process, taught.record
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "pure virtual" not in ended.stderr
    assert "Traceback" not in ended.stderr

    assert all(component.is_complete for component in record.components)
    assert record.output("ImportExampleGen-pairs", "examples").uri.startswith(f"{store}/tfx/")
    assert layout.list_versions(config.pairs_dir) == [(1, 1)]
    local_root = Path(config_path.parent, "local")
    written_here = {
        path.relative_to(local_root).parts[0] for path in local_root.rglob("*") if path.is_file()
    }
    assert written_here == {"metadata.sqlite", "artifact_files", "catalogs"}

    data_dirs = {task.name: config.task_dir(task) for task in config.tasks}
    for model, data_dir in {"encoder": config.pairs_dir, **data_dirs}.items():
        (saved,) = locations.locate(f"{config.serving_dir}/{model}").glob("*/saved_model.pb")
        card = json.loads((saved.parent / "assets.extra" / "model_card.json").read_text())
        assert (
            card["data_manifest_sha256"] == manifest.read(layout.version_dir(data_dir, 1, 1)).sha256
        )
        assert str(saved.parent) in ended.stdout.replace("\n", "").replace(" ", "").replace("│", "")
        signatures = tf.saved_model.load(str(saved.parent)).signatures
        assert set(card["signatures"]) <= set(signatures)
    # The last model is that of the flood task.
    answer = signatures["serving_default"](s1=tf.fill([1, 32, 32, 2], -15.0))
    assert float(tf.reduce_sum(answer["probabilities"][0, 0, 0])) == pytest.approx(1.0, abs=1e-5)
    picture = locations.locate(f"{config.report_dir}/flood.png").read_bytes()
    assert picture.startswith(b"\x89PNG")

    checked = run_pipeline_here("serve-check", "--config", str(config_path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count(" ok ") == 12


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_attempts_and_spans_of_a_run_on_a_store_are_told_from_there(taught, config_path, store):
    again = run_pipeline_here("retrain", "--config", str(config_path))
    assert again.returncode == 5, again.stderr
    (line,) = [line for line in again.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {store}: every scene is in an earlier span")

    shown = run_pipeline_here("history", "--run", store, "--json")
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    assert [(one["outcome"], one["exit_code"]) for one in told["attempts"]] == [
        ("published", 0),
        ("nothing_new", 5),
    ]
    models = {"encoder", "optical", "flood"}
    # The refused run had published the encoder.
    assert told["attempts"][0]["published"].keys() == models - {"encoder"}
    assert {one["model"] for one in told["versions"]} == models
    page = locations.locate(f"{store}/report/history.html").read_text()
    assert told["attempts"][0]["started_at"] in page

    looked = run_pipeline_here("drift", "--run", store, "--span", "1", "--json")
    assert looked.returncode == 0, looked.stderr
    outcomes = {one["data"]: one["outcome"] for one in json.loads(looked.stdout)["data"]}
    assert outcomes == dict.fromkeys(("pairs", "optical", "flood"), "same_data")
