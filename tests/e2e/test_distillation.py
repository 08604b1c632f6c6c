"""Run a small pipeline whose flood task learns from an optical task."""

import json
from pathlib import Path

import pytest
import yaml
from repository import REPOSITORY
from run_pipeline import run_pipeline

from pipeline.config import load_run_config
from pipeline.report.run_record import read_last_run


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    """Write a config with an optical water task that teaches the flood task.

    It is the smoke run, with the optical task in place of land cover.
    """
    root = tmp_path_factory.mktemp("distillation")
    values = yaml.safe_load((REPOSITORY / "pipeline/configs/smoke.yaml").read_text())
    (flood,) = [task for task in values["tasks"] if task["use"] == "flood"]
    optical = {**flood, "name": "optical", "segment": {**flood["segment"], "sensors": ["s2"]}}
    student = {**flood, "distill": {"teacher": "optical", "num_steps": 4, "global_batch_size": 8}}
    values |= {
        "root": str(root / "run"),
        "tasks": [optical, student],
        "probe": {**values["probe"], "task": "optical"},
    }
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.e2e
def test_refused_teacher_stops_the_student_and_a_blessed_one_teaches_it(config_path):
    config = load_run_config(config_path, [], {})
    asked = ["--config", str(config_path), "--set", "tasks.0.min_mean_iou=1.0"]
    refused = run_pipeline("run", *asked)
    assert refused.returncode == 4
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: flood: its teacher 'optical' is refused by its Evaluator")
    ran = {
        item.component_id for item in read_last_run(config.metadata_path, config.name).components
    }
    assert "Pusher-optical" in ran
    assert not {"Trainer-flood", "Evaluator-flood", "Pusher-flood"} & ran
    shown = run_pipeline("report", *asked)
    assert shown.returncode == 4
    assert "not trained: flood: the run ended at a refused teacher: optical" in shown.stdout

    taught = run_pipeline("run", "--config", str(config_path))
    assert taught.returncode == 0, taught.stdout + taught.stderr
    record = read_last_run(config.metadata_path, config.name)
    # The teacher is not trained a second time.
    assert next(
        item for item in record.components if item.component_id == "Trainer-optical"
    ).is_cached
    (model,) = Path(config.serving_dir, "flood").glob("*/assets.extra/model_card.json")
    student = record.output("DistillTrainer-flood", "model").uri
    assert json.loads(model.read_text())["started_from"] == {"s1": f"{student}/Format-Serving"}
