"""Files that run TensorFlow Serving for a run's published models.

Serving folder -> text of `models.config`, batching and monitoring parameters, a compose
file and Kubernetes manifests. Pure functions: `serve_config.py` writes the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from beam_jobs.contracts.published import MODELS_FILE

IMAGE = "docker.io/tensorflow/serving:2.16.1"
"""Server of the TensorFlow release that exports the models."""
GPU_IMAGE = "docker.io/tensorflow/serving:2.16.1-gpu"
GRPC_PORT, REST_PORT = 8500, 8501
METRICS_PATH = "/monitoring/prometheus/metrics"
CONFIG_DIR, MODELS_DIR = "/etc/terrapair", "/models"
BATCHING_FILE, MONITORING_FILE = "batching.config", "monitoring.config"
STABLE, CANARY = "stable", "canary"
_LABELS = {"app.kubernetes.io/name": "terrapair-serving"}


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model that the server loads.

    Attributes:
        name: of the model, as clients call it.
        versions: version label -> version.
    """

    name: str
    versions: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How the server joins requests into batches.

    Requests that are joined must have one height and width: with batching, the server
    refuses requests of two sizes that arrive at the same time.

    Attributes:
        max_batch_size: most windows in a batch.
        timeout_micros: how long the first request waits for others, microseconds.
        num_threads: batches that are computed at a time.
        max_queued: batches that wait; further requests are refused as UNAVAILABLE.
    """

    max_batch_size: int = 8
    timeout_micros: int = 5000
    num_threads: int = 2
    max_queued: int = 64


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The place and the size of the server.

    Attributes:
        models_uri: folder of the models as the server reads it: s3://, gs://, or a path
            in the container, which is then a mounted volume.
        secret: name of a Kubernetes Secret whose keys become environment variables,
            such as the credentials of an object store; empty = none.
        storage: size of the volume claim for models in a folder.
        num_cores: CPU cores of a server.
        memory: of a server, as Kubernetes writes it.
        min_replicas: fewest servers.
        max_replicas: most servers.
        batching: how requests are joined; None = each is computed on its own.
    """

    models_uri: str = MODELS_DIR
    secret: str = ""
    storage: str = "10Gi"
    num_cores: int = 4
    memory: str = "8Gi"
    min_replicas: int = 1
    max_replicas: int = 4
    batching: Batching | None = None

    @property
    def is_mounted(self) -> bool:
        """Whether the models lie in a volume, not on an object store."""
        return "://" not in self.models_uri


def models_config(models: Sequence[ServedModel], models_uri: str) -> str:
    """Return `models.config`: which versions the server loads, and their labels.

    Source: TensorFlow Serving, model_server_config.proto.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for model in models:
        entry = config.model_config_list.config.add()
        entry.name = model.name
        entry.base_path = f"{models_uri.rstrip('/')}/{model.name}"
        entry.model_platform = "tensorflow"
        entry.model_version_policy.specific.versions.extend(sorted(set(model.versions.values())))
        for label, version in sorted(model.versions.items()):
            entry.version_labels[label] = version
    return str(text_format.MessageToString(config))


def batching_config(batching: Batching) -> str:
    """Return the batching parameters.

    Source: TensorFlow Serving, session_bundle_config.proto (BatchingParameters).
    """
    values = {
        "max_batch_size": batching.max_batch_size,
        "batch_timeout_micros": batching.timeout_micros,
        "num_batch_threads": batching.num_threads,
        "max_enqueued_batches": batching.max_queued,
    }
    return "".join(f"{name} {{ value: {value} }}\n" for name, value in values.items())


def monitoring_config() -> str:
    """Return the monitoring parameters: metrics for Prometheus on the REST port."""
    return f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'


def server_arguments(with_batching: bool) -> list[str]:
    """Return the arguments of tensorflow_model_server, in the container."""
    batching = [
        "--enable_batching=true",
        f"--batching_parameters_file={CONFIG_DIR}/{BATCHING_FILE}",
    ]
    return [
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={CONFIG_DIR}/{MODELS_FILE}",
        # A label may be moved to a version that is still loading.
        "--allow_version_labels_for_unavailable_models=true",
        "--model_config_file_poll_wait_seconds=60",
        f"--monitoring_config_file={CONFIG_DIR}/{MONITORING_FILE}",
        *(batching if with_batching else []),
    ]


def compose_file(deployment: Deployment, models_dir: str) -> str:
    """Return `compose.yaml` for one server on this machine.

    Args:
        deployment: where the models are.
        models_dir: folder of the published models on this machine.
    """
    volumes = [f"./config:{CONFIG_DIR}:ro"]
    if deployment.is_mounted:
        volumes.append(f"{models_dir}:{MODELS_DIR}:ro")
    service = {
        "image": IMAGE,
        # The image's own program takes one model only.
        "entrypoint": ["tensorflow_model_server"],
        "command": server_arguments(deployment.batching is not None),
        "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)],
        "volumes": volumes,
        "read_only": True,
        "tmpfs": ["/tmp"],
        "restart": "unless-stopped",
    }
    return _as_yaml([{"services": {"serving": service}}])


def kubernetes_manifests(
    models: Sequence[ServedModel], deployment: Deployment, config_files: Mapping[str, str]
) -> dict[str, str]:
    """Return file name -> manifests, in the order in which they are applied.

    `deployment.yaml` and `deployment-gpu.yaml` are alternatives.

    Args:
        models: that the server loads; the probes ask for the first.
        deployment: where and how large.
        config_files: the server's files, which become a ConfigMap.
    """
    files = {"config.yaml": [_object("v1", "ConfigMap", {"data": dict(config_files)})]}
    if deployment.is_mounted:
        claim = {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": deployment.storage}},
        }
        files["volume.yaml"] = [_object("v1", "PersistentVolumeClaim", {"spec": claim})]
    for name, has_gpu in (("deployment.yaml", False), ("deployment-gpu.yaml", True)):
        spec = _deployment_spec(models[0], deployment, has_gpu)
        files[name] = [_object("apps/v1", "Deployment", {"spec": spec})]
    ports = [
        {"name": name, "port": port, "targetPort": name}
        for name, port in (("grpc", GRPC_PORT), ("rest", REST_PORT))
    ]
    # Headless: one gRPC connection stays with one server, so clients spread themselves.
    service = {"selector": _LABELS, "clusterIP": "None", "ports": ports}
    files["service.yaml"] = [_object("v1", "Service", {"spec": service})]
    files["autoscaler.yaml"] = [
        _object("autoscaling/v2", "HorizontalPodAutoscaler", {"spec": _autoscaler(deployment)})
    ]
    return {name: _as_yaml(objects) for name, objects in files.items()}


def _object(api_version: str, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "terrapair-serving", "labels": _LABELS},
        **content,
    }


def _deployment_spec(model: ServedModel, deployment: Deployment, has_gpu: bool) -> dict[str, Any]:
    limits = {"cpu": str(deployment.num_cores), "memory": deployment.memory}
    if has_gpu:
        limits["nvidia.com/gpu"] = "1"
    mounts = [{"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}]
    volumes: list[dict[str, Any]] = [{"name": "config", "configMap": {"name": "terrapair-serving"}}]
    if deployment.is_mounted:
        mounts.append({"name": "models", "mountPath": deployment.models_uri, "readOnly": True})
        claim = {"claimName": "terrapair-serving", "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
    # The status of a model: 404 until the server knows it.
    probe = {"httpGet": {"path": f"/v1/models/{model.name}/labels/{STABLE}", "port": "rest"}}
    container: dict[str, Any] = {
        "name": "serving",
        "image": GPU_IMAGE if has_gpu else IMAGE,
        "command": ["tensorflow_model_server"],
        "args": server_arguments(deployment.batching is not None),
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "rest", "containerPort": REST_PORT},
        ],
        "resources": {"requests": dict(limits), "limits": limits},
        "volumeMounts": mounts,
        # Loading a model and its warm-up requests may take minutes.
        "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 10},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if deployment.secret:
        container["envFrom"] = [{"secretRef": {"name": deployment.secret}}]
    return {
        "replicas": deployment.min_replicas,
        "selector": {"matchLabels": _LABELS},
        "template": {
            "metadata": {
                "labels": _LABELS,
                "annotations": {
                    "prometheus.io/scrape": "true",
                    "prometheus.io/port": str(REST_PORT),
                    "prometheus.io/path": METRICS_PATH,
                },
            },
            "spec": {"containers": [container], "volumes": volumes},
        },
    }


def _autoscaler(deployment: Deployment) -> dict[str, Any]:
    return {
        "scaleTargetRef": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": "terrapair-serving",
        },
        "minReplicas": deployment.min_replicas,
        "maxReplicas": deployment.max_replicas,
        "metrics": [
            {
                "type": "Resource",
                "resource": {
                    "name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 70},
                },
            }
        ],
    }


def _as_yaml(objects: Sequence[Mapping[str, Any]]) -> str:
    text = "---\n".join(yaml.dump(dict(one), Dumper=_Plain, sort_keys=False) for one in objects)
    return text


class _Plain(yaml.SafeDumper):
    """Writes repeated values in full: few people read YAML anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
