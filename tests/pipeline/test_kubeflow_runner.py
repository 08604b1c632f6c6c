import json

import pytest

from beam_jobs.contracts import settings
from pipeline.config import RunConfig
from pipeline.kubeflow_runner import compile_pipeline

DATA_EDGES = {
    "ImportExampleGen-{}": set(),
    "DataManifest-{}": {"ImportExampleGen-{}"},
    "StatisticsGen-{}": {"ImportExampleGen-{}"},
    "SchemaGen-{}": {"StatisticsGen-{}"},
    "ExampleValidator-{}": {"StatisticsGen-{}", "SchemaGen-{}"},
}
EDGES = {
    "OverlapAudit-flood": {"ImportExampleGen-pairs", "ImportExampleGen-flood"},
    "OverlapGate-flood": {"OverlapAudit-flood"},
    "Trainer-pretrain": {"ImportExampleGen-pairs", "DataManifest-pairs", "OverlapGate-flood"},
    "Pusher-encoder": {"Trainer-pretrain"},
    "Trainer-flood": {"ImportExampleGen-flood", "DataManifest-flood", "Trainer-pretrain", "OverlapGate-flood"},
    "Evaluator-flood": {"ImportExampleGen-flood", "Trainer-flood"},
    "Pusher-flood": {"Trainer-flood", "Evaluator-flood"},
    **{
        task.format(name): {parent.format(name) for parent in parents}
        for name in ("pairs", "flood")
        for task, parents in DATA_EDGES.items()
    },
}


@pytest.fixture
def compiled(values, tmp_path):
    values["root"] = "s3://bucket/terrapair"
    output = tmp_path / "out" / "pipeline.json"
    compile_pipeline(settings.from_dict(RunConfig, values), output)
    return json.loads(output.read_text())


def test_specification_holds_every_component_and_edge(compiled):
    tasks = compiled["pipelineSpec"]["root"]["dag"]["tasks"]
    assert {name: set(task.get("dependentTasks", [])) for name, task in tasks.items()} == EDGES


def test_specification_carries_root_image_gate_and_patterns(compiled):
    text = json.dumps(compiled)
    assert compiled["runtimeConfig"]["gcsOutputDirectory"] == "s3://bucket/terrapair/tfx"
    images = {
        executor["container"]["image"]
        for executor in compiled["pipelineSpec"]["deploymentSpec"]["executors"].values()
        if "container" in executor
    }
    assert images == {"registry.example/terrapair:1"}
    assert "s3://bucket/terrapair/serving/flood" in text
    assert "span-{SPAN}/version-{VERSION}/test/*" in text
    assert "serve_examples" in text


def test_root_on_this_machine_is_refused(values, tmp_path):
    with pytest.raises(settings.SettingsError, match=r"root: must be an object store .* got 'runs/test'"):
        compile_pipeline(settings.from_dict(RunConfig, values), tmp_path / "x.json")


def test_missing_image_is_refused(values, tmp_path):
    values["container_image"] = ""
    with pytest.raises(settings.SettingsError, match="container_image: needed"):
        compile_pipeline(settings.from_dict(RunConfig, values), tmp_path / "x.json")
