"""The pipeline for Kubeflow Pipelines: tasks, order, pods, parameters, and what is refused."""

import copy
import inspect
import json
import re
import types

import pytest
import yaml
from google.protobuf import json_format
from kfp import components, dsl
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from pipeline.config import RunConfig, load_text
from pipeline.kubeflow.compiling import compile_pipeline
from pipeline.kubeflow.task_commands import node as node_verb
from tests.data.runs.pipeline_edges import EDGES
from tests.data.runs.pipeline_values import VALUES
from tests.data.runs.repository import REPOSITORY

JOBS = {"build-pairs", "build-labels-flood"}
GOLDEN = REPOSITORY / "tests" / "pipeline" / "kubeflow" / "golden.yaml"
PASSWORD = {"name": "db", "env": {"password": "TERRAPAIR_METADATA_PASSWORD"}}
PODS = {
    "default": {
        "memory": "2Gi",
        "env": {"S3_ENDPOINT": "http://minio:9000"},
        "volumes": [{"mount_path": "/data", "claim": "data"}],
        "secrets": [PASSWORD],
    },
    "build": {"cpu": "4"},
    "build-labels-flood": {"scratch": "30Gi"},
    "Trainer": {"memory": "8Gi", "memory_limit": "16Gi", "scratch": "20Gi"},
    "Trainer-pretrain": {
        "cpu": "500m",
        "cpu_limit": "2",
        "gpu_type": "nvidia.com/gpu",
        "num_gpus": 2,
        "node_selector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [
            {"mount_path": "/dev/shm", "size": "1Gi", "in_memory": True},
            {"mount_path": "/cache", "size": "50Gi", "storage_class": "fast"},
        ],
        "secrets": [PASSWORD, {"name": "ca", "mount_path": "/etc/ca"}],
        "pull_policy": "IfNotPresent",
        "pull_secrets": ["registry"],
        "timeout_seconds": 86400,
        "num_retries": 3,
    },
}


HELD_OUT = {"name": "area", "split": "test", "geojson": "/home/me/area.json"}


def pods_values():
    """The values of a run that can be compiled."""
    return copy.deepcopy(VALUES) | {
        "root": "s3://bucket/terrapair",
        "catalogs": [{"layout": "stac", "path": "s3://bucket/items.ndjson"}],
        "metadata": {"host": "mysql.kubeflow"},
        "kubeflow": {"pods": copy.deepcopy(PODS)},
    }


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The compiled file. What knows this machine alone must not be in it."""
    values = pods_values() | {"local_root": "/home/me", "notify": {"command": ["mail"]}}
    path = tmp_path_factory.mktemp("compiled") / "run.yml"
    path.write_text("old")
    compile_pipeline(settings.from_dict(RunConfig, values), path)
    return path


@pytest.fixture
def compiled(output):
    """Its two documents: the pipeline and its platform settings."""
    return list(yaml.safe_load_all(output.read_text()))


def executor(spec, node):
    return spec["deploymentSpec"]["executors"][f"exec-{node.lower()}"]["container"]


def tasks_of(spec):
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_the_specification_is_as_the_golden_file(compiled):
    spec, _ = compiled
    # A default of any setting would change these; the next test holds the settings.
    arguments = executor(spec, "begin")["args"]
    arguments[arguments.index("--config") + 1] = "SETTINGS"
    info = spec["pipelineInfo"]
    info["description"] = re.sub("config [0-9a-f]{12}$", "config HASH", info["description"])
    assert compiled == list(yaml.safe_load_all(GOLDEN.read_text()))


def test_the_first_task_gets_the_settings_and_all_tasks_speak_to_the_verb(compiled):
    spec, _ = compiled
    first = executor(spec, "begin")["args"]
    text = first[first.index("--config") + 1]
    expected = settings.from_dict(RunConfig, pods_values())
    assert load_text(text, "--config", [], {}) == expected
    nodes = set()
    for container in spec["deploymentSpec"]["executors"].values():
        assert container["container"]["command"] == ["terrapair", "node"]
        assert container["container"]["image"] == "registry.example/terrapair:1"
        given = container["container"]["args"]
        # Kubeflow puts the values in here; a number of text that is a span, too.
        given = [re.sub(r"^\{\{.*span.*\}\}$", "2", one) for one in given]
        parsed = node_verb.make_context("node", list(given)).params
        nodes.add(parsed["name"])
        assert parsed["run_id"] == "{{$.inputs.parameters['run_id']}}"
        assert (
            bool(parsed["config_path"]) == (parsed["name"] == "begin") != bool(parsed["run_root"])
        )
        assert str(parsed["outcome_file"]) == "{{$.outputs.parameters['outcome'].output_file}}"
    assert nodes == {"begin", "report", *JOBS, *EDGES}


def test_every_edge_of_the_pipeline_is_an_edge_of_the_tasks(compiled):
    spec, _ = compiled
    tasks = tasks_of(spec)
    found = {
        task["taskInfo"]["name"]: {
            tasks[one]["taskInfo"]["name"] for one in task.get("dependentTasks", [])
        }
        for task in tasks.values()
    }
    assert found.pop("begin") == set()
    assert [found.pop(job) for job in sorted(JOBS)] == [{"begin"}, {"begin"}]
    # Each of the first nodes waits for all data jobs: one with new scenes is enough.
    assert found == {node: parents or JOBS for node, parents in EDGES.items()}
    root = spec["root"]["dag"]["tasks"]
    # The report comes after all, however they ended.
    assert root["report"]["dependentTasks"] == ["exit-handler-1"]
    assert root["report"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    for task in (*tasks.values(), root["report"]):
        assert task["cachingOptions"] == {}
        assert task["inputs"]["parameters"]["run_id"]["runtimeValue"] == {
            "constant": "{{$.pipeline_job_uuid}}"
        }


def test_pods_get_what_their_kind_and_their_node_say(compiled):
    spec, platform = compiled
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executor(spec, "Pusher-flood")["resources"]["resourceMemoryRequest"] == "2Gi"
    assert executor(spec, "Trainer-flood")["resources"]["resourceMemoryLimit"] == "16Gi"
    pretrain = executor(spec, "Trainer-pretrain")
    accelerator = pretrain["resources"]["accelerator"]
    assert (accelerator["resourceType"], accelerator["resourceCount"]) == ("nvidia.com/gpu", "2")
    assert pretrain["resources"]["resourceCpuLimit"] == "2"
    env = {one["name"]: one["value"] for one in pretrain["env"]}
    assert env == {"S3_ENDPOINT": "http://minio:9000", "TMPDIR": "/scratch"}
    found = pods["exec-trainer-pretrain"]
    assert found["nodeSelector"]["labels"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert {one["mountPath"]: one["size"] for one in found["genericEphemeralVolume"]} == {
        "/scratch": "20Gi",
        "/cache": "50Gi",
    }
    assert [one["mountPath"] for one in found["secretAsVolume"]] == ["/etc/ca"]
    assert [executor(spec, job)["resources"]["resourceCpuRequest"] for job in JOBS] == ["4", "4"]
    assert "genericEphemeralVolume" not in pods["exec-build-pairs"]
    assert [one["size"] for one in pods["exec-build-labels-flood"]["genericEphemeralVolume"]] == [
        "30Gi"
    ]
    assert "pvcMount" not in found
    assert [one["mountPath"] for one in pods["exec-begin"]["pvcMount"]] == ["/data"]
    assert "accelerator" not in executor(spec, "Trainer-flood")["resources"]


def test_the_locked_client_loads_it_and_knows_every_setting(compiled, output):
    spec, platform = compiled
    loaded = components.load_component_from_file(str(output))
    assert loaded.name == "test-run"
    assert {name: one.type for name, one in loaded.component_spec.inputs.items()} == {
        "overrides": "List",
        "thresholds": "Dict",
        "span": "Integer",
    }
    # Both parsers refuse unknown fields.
    json_format.ParseDict(spec, PipelineSpec())
    for pod in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(pod, KubernetesExecutorConfig())
    # A value of a secret is nowhere, only names.
    assert "password: " not in json.dumps(spec)
    assert spec["schemaVersion"] == "2.1.0"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"container_image": ""}, r"^container_image: needed to compile"),
        ({"root": "runs/x"}, r"^root: must be an object store .* got 'runs/x'"),
        ({"metadata": None}, r"^metadata: needed to compile for Kubeflow"),
        ({"kubeflow": {}}, r"^kubeflow.pods: no secret of begin gives TERRAPAIR_METADATA_PASSWORD"),
        (
            {"kubeflow": {"pods": {**PODS, "Trainr": {"cpu": "1"}}}},
            r"^kubeflow.pods.Trainr: no node or kind of node; known: .*Trainer",
        ),
        (
            {"kubeflow": {"pods": {**PODS, "Evaluator": {"num_gpus": 1}}}},
            r"^kubeflow.pods: Evaluator-flood has num_gpus 1 and no gpu_type",
        ),
        (
            {"kubeflow": {"pods": {**PODS, "report": {"secrets": []}}}},
            r"^kubeflow.pods: no secret of report gives TERRAPAIR_METADATA_PASSWORD",
        ),
        ({"name": "a-$(HOME)"}, r"no setting may hold '\$\('"),
        (
            {"catalogs": [{"layout": "sen1floods11", "path": "/home/me/s1f11"}]},
            r"^catalogs\[0\].path: pods cannot read '/home/me/s1f11' .*kubeflow.pods.build.volumes",
        ),
        (
            {"pairs": {"split": {"holdouts": [HELD_OUT]}}},
            r"^pairs.split.holdouts\[0\].geojson: pods cannot read '/home/me/area.json'",
        ),
        (
            {"data": {"beam_options": ["--runner=FlinkRunner", "--parallelism=2"]}},
            r"^data.beam_options: runner FlinkRunner needs the address .*--flink_master=HOST:8081",
        ),
        (
            {"data": {"beam_options": ["--runner=Flnk"]}},
            r"^data.beam_options: runner 'Flnk' is not known to Beam: use FlinkRunner, Spark",
        ),
        (
            {
                "catalogs": [{"layout": "simulated", "simulate": {}}],
                "data": {"beam_options": ["--runner=FlinkRunner", "--flink_master=flink:8081"]},
            },
            r"^catalogs\[0\]: simulated scenes are on the disk of the job",
        ),
        (
            {"catalogs": [], "earth_engine": {"places": "s3://b/p.geojson", "start": "2026-01-01"}},
            r"^earth_engine: `terrapair retrain` asks there, pods do not: fetch to a store",
        ),
    ],
)
def test_what_pods_could_not_do_is_refused_in_one_line(tmp_path, change, told):
    output = tmp_path / "run.yaml"
    output.write_text("old")
    with pytest.raises(SettingsError, match=told) as refused:
        compile_pipeline(settings.from_dict(RunConfig, pods_values() | change), output)
    assert "\n" not in str(refused.value)
    assert output.read_text() == "old"


def test_a_folder_on_a_claim_of_the_pods_is_no_folder_of_this_machine(tmp_path):
    volume = {"mount_path": "/s1f11", "claim": "scenes"}
    build = {"build": {"volumes": [*PODS["default"]["volumes"], volume]}}
    change = {
        "catalogs": [{"layout": "sen1floods11", "path": "/s1f11/v1"}],
        "kubeflow": {"pods": {**PODS, **build}},
    }
    compile_pipeline(settings.from_dict(RunConfig, pods_values() | change), tmp_path / "run.yaml")


def test_without_data_jobs_the_pipeline_begins_with_shards_that_are_there(tmp_path):
    change = {
        "catalogs": [{"layout": "sen1floods11", "path": "/home/me/s1f11"}],
        "data": {"build": False},
        "kubeflow": {"pods": {key: PODS[key] for key in PODS if not key.startswith("build")}},
    }
    compile_pipeline(settings.from_dict(RunConfig, pods_values() | change), tmp_path / "run.yaml")
    spec, _ = yaml.safe_load_all((tmp_path / "run.yaml").read_text())
    assert {one["taskInfo"]["name"] for one in tasks_of(spec).values()} == {"begin", *EDGES}


def test_compiling_does_not_walk_the_stack_for_each_setting(tmp_path, monkeypatch):
    def walk(*_):
        raise AssertionError("0.1 s with TFX imported, several hundred times")

    monkeypatch.setattr(inspect, "stack", walk)
    compile_pipeline(settings.from_dict(RunConfig, pods_values()), tmp_path / "run.yaml")
    monkeypatch.undo()
    # What kfp's own check says is as before.
    group = types.SimpleNamespace(container_spec=None)
    with pytest.raises(ValueError, match="can only be used on single-step components"):
        dsl.PipelineTask._ensure_container_spec_exists(group)


def test_the_file_must_be_yaml_and_is_written_alone(output, tmp_path):
    config = settings.from_dict(RunConfig, pods_values())
    with pytest.raises(SettingsError, match=r"--output: must end in .yaml .* --target vertex"):
        compile_pipeline(config, tmp_path / "run.json")
    assert [path.name for path in output.parent.iterdir()] == ["run.yml"]
