"""Files of a model server, read back as the server and Kubernetes read them."""

import json
import re

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
from tests.data.servers import kubernetes_schema

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
            one.model_version_policy.WhichOneof("policy_choice"),
            dict(one.version_labels),
        )
        for one in config.model_config_list.config
    }


def test_the_server_loads_all_versions_and_knows_the_labels():
    found = read_config(server_files.models_config(MODELS, "/models"))
    assert found == {
        "encoder": ("/models/encoder", "all", {"stable": 7}),
        "flood": ("/models/flood", "all", {"canary": 12, "stable": 3}),
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


PLACES = {
    "volume": Deployment(),
    "volume elsewhere, batching": Deployment(models_uri="/srv/models", batching=Batching()),
    "s3": Deployment(models_uri="s3://bucket/serving/", secret="keys"),
    "gs": Deployment(models_uri="gs://bucket/serving"),
}


def manifests(deployment):
    texts = server_files.kubernetes_manifests(MODELS, deployment, {"models.config": "x"})
    return {name: yaml.safe_load(text) for name, text in texts.items()}


@pytest.mark.parametrize("place", PLACES)
def test_kubernetes_knows_every_field(place):
    found = manifests(PLACES[place])
    assert [kubernetes_schema.complaints(one) for one in found.values()] == [[]] * len(found)
    assert ("volume.yaml" in found) == place.startswith("volume")


def test_the_check_of_fields_sees_what_the_api_server_refuses():
    deployment = manifests(Deployment())["deployment.yaml"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["ports"][0]["hostport"] = 1
    container["ports"][1]["containerPort"] = "8501"
    container["resources"]["limits"]["cpu"] = 4
    container["securityContext"]["allowPrivilegeEscalation"] = "no"
    del deployment["spec"]["selector"]
    where = "Deployment.spec.template.spec.containers[0]"
    assert kubernetes_schema.complaints(deployment) == [
        f"{where}.ports[0].hostport: unknown field",
        f"{where}.ports[1].containerPort: must be int, got '8501'",
        f"{where}.resources.limits.cpu: must be str, got 4",
        f"{where}.securityContext.allowPrivilegeEscalation: must be bool, got 'no'",
        "Deployment.spec.selector: missing",
    ]
    assert kubernetes_schema.complaints({"apiVersion": "apps/v1", "kind": "Deploy"}) == [
        "Deploy: no such kind in apps/v1"
    ]


@pytest.mark.parametrize("place", PLACES)
def test_the_server_reads_the_models_where_they_are_mounted_or_copied(place, run, tmp_path):
    deployment = PLACES[place]
    models = serve_config.find_models(str(run / "serving"), {"flood": {"canary": 3}})
    serve_config.write_files(models, deployment, str(run / "serving"), tmp_path)
    config = read_config((tmp_path / "config/models.config").read_text())
    pod = yaml.safe_load((tmp_path / "kubernetes/deployment.yaml").read_text())["spec"]["template"]
    services = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    mounts = {one["name"]: one["mountPath"] for one in pod["spec"]["containers"][0]["volumeMounts"]}
    assert {folder.rpartition("/")[0] for folder, *_ in config.values()} == {mounts["models"]}
    assert [one.split(":")[1] for one in services["serving"]["volumes"]] == list(mounts.values())
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    if not deployment.store:
        assert "initContainers" not in pod["spec"]
        assert any("poll_wait" in one for one in services["serving"]["command"])
        assert list(services) == ["serving"]
        assert volumes["models"]["persistentVolumeClaim"]["claimName"] == "terrapair-serving"
        assert services["serving"]["volumes"][1].split(":")[0] == f"{run}/serving"
        return
    # Each version that has a label is copied to where models.config says.
    wanted = {
        f"{folder}/{version}"
        for folder, _, labels in config.values()
        for version in labels.values()
    }
    assert len(wanted) == 3
    assert {one["command"][-1] for one in pod["spec"]["initContainers"]} == wanted
    for container in pod["spec"]["initContainers"]:
        *_, source, target = container["command"]
        assert source == target.replace("/models", f"{place}://bucket/serving")
        assert services[container["name"]]["entrypoint"] == container["command"]
        assert container.get("envFrom") == (
            [{"secretRef": {"name": "keys"}}] if deployment.secret else None
        )
    # Servers with copies start anew for other versions and labels; the others look.
    assert not any("poll_wait" in one for one in services["serving"]["command"])
    mark = services["serving"]["labels"]["terrapair/config-sha256"]
    assert pod["metadata"]["annotations"]["terrapair/config-sha256"] == mark
    models = serve_config.find_models(str(run / "serving"), {"flood": {"stable": 3}})
    serve_config.write_files(models, deployment, str(run / "serving"), tmp_path)
    assert mark not in (tmp_path / "kubernetes/deployment.yaml").read_text()
    assert mark not in (tmp_path / "compose.yaml").read_text()
    assert set(services["serving"]["depends_on"]) == set(services) - {"serving"}
    assert "emptyDir" in volumes["models"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models_uri": "models"}, "models_uri must be s3://..., gs://..., or an absolute path"),
        ({"models_uri": "az://bucket"}, "got 'az://bucket'"),
        ({"models_uri": "/a:b"}, "without a colon"),
        ({"models_uri": "/etc/terrapair/"}, "other than /etc/terrapair"),
        ({"models_uri": "/"}, "absolute path"),
        ({"secret": "My_Keys"}, "secret must be the name of a Kubernetes Secret"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Deployment(**changes)


def test_only_the_gpu_deployment_asks_for_a_gpu():
    for name, count in (("deployment.yaml", None), ("deployment-gpu.yaml", "1")):
        container = manifests(Deployment())[name]["spec"]["template"]["spec"]["containers"][0]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == count
        assert ("-gpu" in container["image"]) == (count is not None)
        assert container["readinessProbe"]["httpGet"]["path"] == (
            "/v1/models/encoder/labels/stable/metadata"
        )


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
    # Applying the deployment again must not undo what the autoscaler has set.
    assert "replicas" not in deployment["spec"]


def test_the_verb_writes_the_files_and_names_versions(run, tmp_path, capsys):
    arguments = ["serve-config", "--run", str(run), "--output", str(tmp_path / "out"), "--json"]
    assert program.run([*arguments, "--canary", "flood=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == {"encoder": {"stable": 7}, "flood": {"stable": 12, "canary": 3}}
    config = read_config((tmp_path / "out/config/models.config").read_text())
    assert config["flood"] == ("/models/flood", "all", {"stable": 12, "canary": 3})
    # `predict --label` takes the labels from there, too.
    file = published.models_file(tmp_path / "out")
    assert published.version_labels(file) == found["models"]
    assert program.run(["serve-config", "--run", "none", "--output", str(tmp_path)]) == 3
