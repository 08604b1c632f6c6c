"""Files of a model server, read back as the server and Kubernetes read them."""

import json

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from beam_jobs.contracts import published
from beam_jobs.contracts.settings import SettingsError
from beam_jobs.errors import DataError
from beam_jobs.terminal import program
from pipeline.serving import serve_config, server_files
from pipeline.serving.server_files import Batching, Deployment, ServedModel

MODELS = [
    ServedModel(name="encoder", versions={"stable": 7}),
    ServedModel(name="flood", versions={"stable": 3, "canary": 12}),
]


@pytest.fixture
def run(tmp_path):
    """A run with two versions of a flood model, and one that a killed push left."""
    for model, version in (("flood", 3), ("flood", 12), ("encoder", 7)):
        assets = tmp_path / "run/serving" / model / str(version) / "assets.extra"
        assets.mkdir(parents=True)
        (assets / "model_card.json").write_text("{}")
    (tmp_path / "run/serving/flood/20").mkdir()
    (tmp_path / "run/serving/snow").mkdir()
    return tmp_path / "run"


def read_config(text):
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {
        one.name: (
            one.base_path,
            list(one.model_version_policy.specific.versions),
            dict(one.version_labels),
        )
        for one in config.model_config_list.config
    }


def test_the_server_loads_the_labelled_versions_and_no_other():
    found = read_config(server_files.models_config(MODELS, "s3://bucket/serving/"))
    assert found == {
        "encoder": ("s3://bucket/serving/encoder", [7], {"stable": 7}),
        "flood": ("s3://bucket/serving/flood", [3, 12], {"canary": 12, "stable": 3}),
    }


def test_the_newest_complete_version_is_stable_unless_another_is_named(run):
    serving = str(run / "serving")
    newest = serve_config.find_models(serving, {})
    assert {one.name: dict(one.versions) for one in newest} == {
        "encoder": {"stable": 7},
        "flood": {"stable": 12},
    }
    wanted = serve_config.parse_versions(["flood=3"], ["flood=12"])
    named = serve_config.find_models(serving, wanted)
    assert dict(named[1].versions) == {"stable": 3, "canary": 12}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("flood", "--canary must be MODEL=VERSION, got 'flood'"),
        ("flood=x", "--canary must be MODEL=VERSION"),
        ("flood=20", "flood=20: no such version .* are: encoder=7, flood=3, flood=12"),
        ("snow=1", "snow=1: no such version"),
    ],
)
def test_a_version_that_is_not_complete_is_refused(run, option, message):
    with pytest.raises(SettingsError, match=message):
        serve_config.find_models(str(run / "serving"), serve_config.parse_versions([], [option]))


def test_a_folder_without_a_complete_model_is_refused(tmp_path):
    (tmp_path / "flood/3").mkdir(parents=True)
    with pytest.raises(DataError, match="no published model found"):
        serve_config.find_models(str(tmp_path), {})


@pytest.mark.parametrize("batching", [None, Batching(max_batch_size=3)])
def test_every_file_that_the_server_is_told_of_is_written(run, tmp_path, batching):
    deployment = Deployment(batching=batching)
    models = serve_config.find_models(str(run / "serving"), {})
    written = serve_config.write_files(models, deployment, str(run / "serving"), tmp_path / "out")
    compose = yaml.safe_load((tmp_path / "out/compose.yaml").read_text())["services"]["serving"]
    told = [
        option.partition("=")[2].rpartition("/")[2]
        for option in compose["command"]
        if server_files.CONFIG_DIR in option
    ]
    assert sorted(path.name for path in (tmp_path / "out/config").iterdir()) == sorted(told)
    assert ("--enable_batching=true" in compose["command"]) == (batching is not None)
    assert f"{run}/serving:/models:ro" in compose["volumes"]
    assert all(path.stat().st_size for path in written)
    config_map = yaml.safe_load((tmp_path / "out/kubernetes/config.yaml").read_text())
    assert config_map["data"] == {
        name: (tmp_path / "out/config" / name).read_text() for name in told
    }
    if batching:
        assert "max_batch_size { value: 3 }" in config_map["data"]["batching.config"]


def manifests(deployment):
    texts = server_files.kubernetes_manifests(MODELS, deployment, {"models.config": "x"})
    return {name: yaml.safe_load(text) for name, text in texts.items()}


def test_models_in_a_folder_are_mounted_and_those_on_a_store_are_not():
    mounted, remote = (
        manifests(Deployment()),
        manifests(Deployment(models_uri="gs://bucket/serving", secret="keys")),
    )
    pod = mounted["deployment.yaml"]["spec"]["template"]["spec"]
    assert {one["name"] for one in pod["volumes"]} == {"config", "models"}
    assert "volume.yaml" in mounted
    pod = remote["deployment.yaml"]["spec"]["template"]["spec"]
    assert {one["name"] for one in pod["volumes"]} == {"config"}
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "keys"}}]
    assert "volume.yaml" not in remote


def test_only_the_gpu_deployment_asks_for_a_gpu():
    for name, count in (("deployment.yaml", None), ("deployment-gpu.yaml", "1")):
        container = manifests(Deployment())[name]["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == count
        assert ("-gpu" in container["image"]) == (count is not None)
        assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/encoder/labels/stable"


def test_the_service_and_the_autoscaler_find_the_pods():
    found = manifests(Deployment(min_replicas=2))
    deployment, pod = (
        found["deployment.yaml"],
        found["deployment.yaml"]["spec"]["template"],
    )
    assert found["service.yaml"]["spec"]["selector"] == pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    named = {one["name"] for one in pod["spec"]["containers"][0]["ports"]}
    assert {one["targetPort"] for one in found["service.yaml"]["spec"]["ports"]} == named
    target = found["autoscaler.yaml"]["spec"]["scaleTargetRef"]["name"]
    assert target == deployment["metadata"]["name"]
    assert found["autoscaler.yaml"]["spec"]["minReplicas"] == 2


def test_the_verb_writes_the_files_and_names_versions(run, tmp_path, capsys):
    arguments = ["serve-config", "--run", str(run), "--output", str(tmp_path / "out"), "--json"]
    assert program.run([*arguments, "--canary", "flood=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == {"encoder": {"stable": 7}, "flood": {"stable": 12, "canary": 3}}
    config = read_config((tmp_path / "out/config/models.config").read_text())
    assert config["flood"] == ("/models/flood", [3, 12], {"stable": 12, "canary": 3})
    # `predict --label` takes the labels from there, too.
    file = published.models_file(tmp_path / "out")
    assert published.version_labels(file) == found["models"]
    assert program.run(["serve-config", "--run", "none", "--output", str(tmp_path)]) == 3
