import json
import os
import subprocess
import sys

import pytest

from beam_jobs.contracts import locations, settings
from pipeline.config import RunConfig
from pipeline.runners.vertex import compile_vertex
from tests.data.runs.pipeline_edges import DATA_EDGES, EDGES
from tests.data.runs.repository import REPOSITORY


@pytest.fixture
def compiled(values, tmp_path):
    values["root"] = "s3://bucket/terrapair"
    output = tmp_path / "out" / "pipeline.json"
    compile_vertex(settings.from_dict(RunConfig, values), output)
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


def test_every_container_starts_through_the_entry_that_knows_object_stores(compiled):
    executors = compiled["pipelineSpec"]["deploymentSpec"]["executors"].values()
    containers = [executor["container"] for executor in executors if "container" in executor]
    drivers = [found["lifecycle"]["preCacheCheck"] for found in containers if "lifecycle" in found]
    assert len(drivers) == 2
    assert {tuple(step["command"]) for step in (*containers, *drivers)} == {
        (
            "python",
            "-m",
            "pipeline.runners.pod",
            "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor",
        ),
        (
            "python",
            "-m",
            "pipeline.runners.pod",
            "tfx.orchestration.kubeflow.v2.file_based_example_gen.driver",
        ),
    }


@pytest.mark.e2e
def test_the_entry_opens_s3_for_the_module_it_runs_and_keeps_its_exit_code(
    s3_environment, s3_folder, tmp_path
):
    (tmp_path / "worker.py").write_text(
        "import sys, tensorflow as tf\n"
        "assert __name__ == '__main__'\n"
        "with tf.io.gfile.GFile(sys.argv[1] + '/file', 'w') as file: file.write(sys.argv[2])\n"
        "sys.exit(int(sys.argv[2]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    for code in ("0", "5"):
        ended = subprocess.run(
            [sys.executable, "-m", "pipeline.runners.pod", "worker", s3_folder, code],
            env=environment,
            check=False,
        )
        assert ended.returncode == int(code)
        assert (locations.locate(s3_folder) / "file").read_text() == code


def test_the_blessing_and_the_thresholds_reach_pusher_and_probe(compiled):
    tasks = compiled["pipelineSpec"]["root"]["dag"]["tasks"]
    blessing = tasks["Pusher-encoder"]["inputs"]["artifacts"]["model_blessing"][
        "taskOutputArtifact"
    ]
    assert blessing == {"producerTask": "EncoderProbe", "outputArtifactKey": "blessing"}
    parameters = {
        name: value["runtimeValue"]["constantValue"].get("stringValue")
        for name, value in tasks["EncoderProbe"]["inputs"]["parameters"].items()
    }
    assert parameters["serving_dir"] == "s3://bucket/terrapair/serving"
    assert json.loads(parameters["config"])["task"] == "flood"


def test_without_tasks_the_probe_takes_the_pairs_alone(values, tmp_path):
    config = settings.from_dict(RunConfig, values | {"root": "s3://bucket/terrapair", "tasks": []})
    compile_vertex(config, tmp_path / "pipeline.json")
    tasks = json.loads((tmp_path / "pipeline.json").read_text())["pipelineSpec"]["root"]["dag"][
        "tasks"
    ]
    assert set(tasks["EncoderProbe"]["inputs"]["artifacts"]) == {
        "model",
        "pairs",
        "pairs_manifest",
        "reference",
    }
    assert set(tasks["EncoderGate"]["dependentTasks"]) == {"EncoderProbe", "Pusher-encoder"}


def test_student_waits_for_the_blessing_of_its_teacher(values, tmp_path):
    flood = values["tasks"][0]
    optical = {**flood, "name": "optical", "segment": flood["segment"] | {"sensors": ["s2"]}}
    student = {**flood, "distill": {"teacher": "optical", "num_steps": 3}}
    config = settings.from_dict(
        RunConfig, values | {"root": "s3://bucket/terrapair", "tasks": [optical, student]}
    )
    compile_vertex(config, tmp_path / "pipeline.json")
    tasks = json.loads((tmp_path / "pipeline.json").read_text())["pipelineSpec"]["root"]["dag"][
        "tasks"
    ]
    assert set(tasks["DistillTrainer-flood"]["dependentTasks"]) == {
        "ImportExampleGen-pairs",
        "DataManifest-pairs",
        "DriftGate-pairs",
        "DriftGate-flood",
        "OverlapGate-flood",
        "Trainer-pretrain",
        "EncoderGate",
        "Trainer-optical",
        "Evaluator-optical",
        "Pusher-optical",
    }
    start = tasks["Trainer-flood"]["inputs"]["artifacts"]["base_model"]["taskOutputArtifact"]
    assert start == {"producerTask": "DistillTrainer-flood", "outputArtifactKey": "model"}
    assert "DistillTrainer-optical" not in tasks


def start_from_published(values, folder):
    """The run of `values` with an encoder of its own in place of the pretraining."""
    del values["pretrain"]
    values["root"] = "s3://bucket/terrapair"
    for task in values["tasks"]:
        segment = task["segment"]
        segment["encoder_paths"] = dict.fromkeys(segment["sensors"], folder)
    return settings.from_dict(RunConfig, values)


def tasks_of(config, tmp_path):
    """Component -> components that it waits for, of the compiled run."""
    compile_vertex(config, tmp_path / "pipeline.json")
    dag = json.loads((tmp_path / "pipeline.json").read_text())["pipelineSpec"]["root"]["dag"]
    return {name: set(task.get("dependentTasks", [])) for name, task in dag["tasks"].items()}


def test_a_published_encoder_leaves_labels_and_segmentation_alone(values, tmp_path):
    config = start_from_published(values, "s3://bucket/serving/encoder/1")
    assert tasks_of(config, tmp_path) == {
        **{
            name.format("flood"): {p.format("flood") for p in parents}
            for name, parents in DATA_EDGES.items()
        },
        "Trainer-flood": {"ImportExampleGen-flood", "DataManifest-flood", "DriftGate-flood"},
        **{
            f"{kind}-flood": EDGES[f"{kind}-flood"]
            for kind in ("Scorer", "Evaluator", "ChampionGate", "Canary", "Pusher")
        },
    }


def test_a_student_of_a_published_encoder_has_pairs_and_their_audit(values, tmp_path):
    flood = values["tasks"][0]
    optical = {**flood, "name": "optical", "segment": flood["segment"] | {"sensors": ["s2"]}}
    values["tasks"] = [optical, {**flood, "distill": {"teacher": "optical", "num_steps": 3}}]
    found = tasks_of(start_from_published(values, "s3://bucket/serving/encoder/1"), tmp_path)
    assert found["DistillTrainer-flood"] == {
        *("ImportExampleGen-pairs", "DataManifest-pairs"),
        *("DriftGate-pairs", "DriftGate-flood", "OverlapGate-flood"),
        *("Trainer-optical", "Evaluator-optical", "Pusher-optical"),
    }
    assert found["OverlapAudit-flood"] == EDGES["OverlapAudit-flood"]
    assert not {"Trainer-pretrain", "EncoderProbe", "EncoderGate", "Pusher-encoder"} & set(found)


def test_an_encoder_on_this_machine_is_refused(values, tmp_path):
    config = start_from_published(values, "runs/demo/serving/encoder/1")
    with pytest.raises(
        settings.SettingsError,
        match=r"tasks\[0\] starts from 'runs/demo/.*', but pods cannot read .*: copy the encoder",
    ):
        compile_vertex(config, tmp_path / "x.json")


def test_root_on_this_machine_is_refused(values, tmp_path):
    with pytest.raises(
        settings.SettingsError, match=r"root: must be an object store .* got 'runs/test'"
    ):
        compile_vertex(settings.from_dict(RunConfig, values), tmp_path / "x.json")


def test_missing_image_is_refused(values, tmp_path):
    values["container_image"] = ""
    with pytest.raises(settings.SettingsError, match="container_image: needed"):
        compile_vertex(settings.from_dict(RunConfig, values), tmp_path / "x.json")
