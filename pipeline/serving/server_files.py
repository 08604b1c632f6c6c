"""Files that run TensorFlow Serving for a run's published models.

Serving folder -> text of `models.config`, batching and monitoring parameters, a compose
file and Kubernetes manifests. Pure functions: `serve_config.py` writes the files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
KUBERNETES_FOLDER = "kubernetes"
CONFIG_MAP_FILE, VOLUME_FILE = "config.yaml", "volume.yaml"
STABLE, CANARY = "stable", "canary"
_LABELS = {"app.kubernetes.io/name": "terrapair-serving"}
_FETCHERS = {
    "s3": ("docker.io/amazon/aws-cli:2.31.0", ("aws", "s3", "sync", "--only-show-errors")),
    "gs": (
        "gcr.io/google.com/cloudsdktool/google-cloud-cli:stable",
        ("gcloud", "storage", "rsync", "--recursive"),
    ),
}
"""Object store -> image and command that copy a folder of it.

TensorFlow Serving itself reads no s3:// since version 2.7.
Source: https://github.com/tensorflow/serving/issues/1963
"""
_VARIABLES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"),
    "gs": ("CLOUDSDK_AUTH_ACCESS_TOKEN",),
}
"""Variables of the shell that compose hands on to these programs."""
_SECRET_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""Source: RFC 1123 subdomains, as the API server checks names of Secrets."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model that the server loads.

    Attributes:
        name: of the model, as clients call it.
        versions: version label -> version.
    """

    name: str
    versions: Mapping[str, int]

    @property
    def numbers(self) -> list[int]:
        """The versions, the oldest first."""
        return sorted(set(self.versions.values()))


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
        models_uri: s3:// or gs://, from where each server copies its versions when it
            starts, or a path in the container, which is then a mounted volume.
        secret: name of a Kubernetes Secret whose keys become environment variables,
            such as the credentials of an object store; empty = none.
        storage: size of the volume claim for models in a folder, or of the copies.
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

    def __post_init__(self) -> None:
        is_path = self.models_uri.startswith("/") and ":" not in self.models_uri
        if not (self.store or is_path) or self.models_uri.rstrip("/") in ("", CONFIG_DIR):
            raise ValueError(
                f"models_uri must be s3://..., gs://..., or an absolute path other than "
                f"{CONFIG_DIR}, without a colon; got {self.models_uri!r}"
            )
        if self.secret and not _SECRET_NAME.fullmatch(self.secret):
            raise ValueError(
                "secret must be the name of a Kubernetes Secret: lower case letters, digits, "
                f"hyphens and dots, got {self.secret!r}"
            )

    @property
    def store(self) -> str:
        """The kind of object store, a key of the fetchers; empty = a mounted volume."""
        scheme = self.models_uri.partition("://")[0]
        return scheme if "://" in self.models_uri and scheme in _FETCHERS else ""

    @property
    def models_dir(self) -> str:
        """Folder of the models as the server sees it."""
        return MODELS_DIR if self.store else self.models_uri.rstrip("/")


def models_config(models: Sequence[ServedModel], models_dir: str) -> str:
    """Return `models.config`: the models that the server loads, and their labels.

    The server loads all versions in a model's folder. A label that it knows can only
    move to a version that is loaded: otherwise the server refuses the whole file, and
    loads nothing that is new in it.

    Args:
        models: that the server loads.
        models_dir: their folder as the server sees it.

    Source: TensorFlow Serving, model_server_config.proto, and
    `ServerCore::UpdateModelVersionLabelMap` in server_core.cc.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for model in models:
        entry = config.model_config_list.config.add()
        entry.name = model.name
        entry.base_path = f"{models_dir}/{model.name}"
        entry.model_platform = "tensorflow"
        entry.model_version_policy.all.SetInParent()
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


def server_arguments(deployment: Deployment) -> list[str]:
    """Return the arguments of tensorflow_model_server, in the container."""
    batching = [
        "--enable_batching=true",
        f"--batching_parameters_file={CONFIG_DIR}/{BATCHING_FILE}",
    ]
    # A server with copies has no version that is newer than itself.
    polling = [] if deployment.store else ["--model_config_file_poll_wait_seconds=60"]
    return [
        f"--port={GRPC_PORT}",
        f"--rest_api_port={REST_PORT}",
        f"--model_config_file={CONFIG_DIR}/{MODELS_FILE}",
        # When the server starts, nothing is loaded that a label could mean.
        "--allow_version_labels_for_unavailable_models=true",
        *polling,
        f"--monitoring_config_file={CONFIG_DIR}/{MONITORING_FILE}",
        *(batching if deployment.batching is not None else []),
    ]


def compose_file(
    models: Sequence[ServedModel],
    deployment: Deployment,
    config_files: Mapping[str, str],
    published_dir: str,
) -> str:
    """Return `compose.yaml` for one server on this machine.

    Args:
        models: that the server loads.
        deployment: where the models are.
        config_files: the server's files.
        published_dir: folder of the published models on this machine.
    """
    source = "models" if deployment.store else published_dir
    fetchers = {
        name: {
            "image": image,
            "entrypoint": command,
            "environment": list(_VARIABLES[deployment.store]),
            "volumes": [f"models:{MODELS_DIR}"],
        }
        for name, image, command in _fetchers(models, deployment)
    }
    server: dict[str, Any] = {
        "image": IMAGE,
        # The image's own program takes one model only.
        "entrypoint": ["tensorflow_model_server"],
        "command": server_arguments(deployment),
        "ports": [f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, REST_PORT)],
        "volumes": [f"./config:{CONFIG_DIR}:ro", f"{source}:{deployment.models_dir}:ro"],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "restart": "unless-stopped",
    }
    content: dict[str, Any] = {"services": {**fetchers, "serving": server}}
    if fetchers:
        server["labels"] = _mark(config_files)
        server["depends_on"] = {
            name: {"condition": "service_completed_successfully"} for name in fetchers
        }
        content["volumes"] = {"models": {}}
    return as_yaml(content)


def _mark(config_files: Mapping[str, str]) -> dict[str, str]:
    """Return a label that changes with the files: a server that has it starts anew."""
    text = json.dumps(dict(config_files), sort_keys=True)
    return {"terrapair/config-sha256": hashlib.sha256(text.encode()).hexdigest()}


def _fetchers(
    models: Sequence[ServedModel], deployment: Deployment
) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, image and command for each version to copy from an object store."""
    if not deployment.store:
        return
    image, command = _FETCHERS[deployment.store]
    paths = [f"{model.name}/{number}" for model in models for number in model.numbers]
    for place, path in enumerate(paths):
        source = f"{deployment.models_uri.rstrip('/')}/{path}"
        yield f"fetch-{place}", image, [*command, source, f"{MODELS_DIR}/{path}"]


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
    files = {CONFIG_MAP_FILE: _object("v1", "ConfigMap", {"data": dict(config_files)})}
    if not deployment.store:
        claim = {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": deployment.storage}},
        }
        files[VOLUME_FILE] = _object("v1", "PersistentVolumeClaim", {"spec": claim})
    for name, has_gpu in (("deployment.yaml", False), ("deployment-gpu.yaml", True)):
        spec = _deployment_spec(models, deployment, has_gpu)
        if deployment.store:
            spec["template"]["metadata"]["annotations"] |= _mark(config_files)
        files[name] = _object("apps/v1", "Deployment", {"spec": spec})
    ports = [
        {"name": name, "port": port, "targetPort": name}
        for name, port in (("grpc", GRPC_PORT), ("rest", REST_PORT))
    ]
    # Headless: one gRPC connection stays with one server, so clients spread themselves.
    service = {"selector": _LABELS, "clusterIP": "None", "ports": ports}
    files["service.yaml"] = _object("v1", "Service", {"spec": service})
    files["autoscaler.yaml"] = _object(
        "autoscaling/v2", "HorizontalPodAutoscaler", {"spec": _autoscaler(deployment)}
    )
    return {name: as_yaml(content) for name, content in files.items()}


def _object(api_version: str, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "terrapair-serving", "labels": _LABELS},
        **content,
    }


def _deployment_spec(
    models: Sequence[ServedModel], deployment: Deployment, has_gpu: bool
) -> dict[str, Any]:
    limits = {"cpu": str(deployment.num_cores), "memory": deployment.memory}
    if has_gpu:
        limits["nvidia.com/gpu"] = "1"
    source: dict[str, Any] = (
        {"emptyDir": {"sizeLimit": deployment.storage}}
        if deployment.store
        else {"persistentVolumeClaim": {"claimName": "terrapair-serving", "readOnly": True}}
    )
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    from_secret = (
        {"envFrom": [{"secretRef": {"name": deployment.secret}}]} if deployment.secret else {}
    )
    # The metadata of a model that is loading are not found; its status is.
    path = f"/v1/models/{models[0].name}/labels/{STABLE}/metadata"
    probe = {"httpGet": {"path": path, "port": "rest"}}
    container: dict[str, Any] = {
        "name": "serving",
        "image": GPU_IMAGE if has_gpu else IMAGE,
        "command": ["tensorflow_model_server"],
        "args": server_arguments(deployment),
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT},
            {"name": "rest", "containerPort": REST_PORT},
        ],
        "resources": {"requests": dict(limits), "limits": limits},
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "models", "mountPath": deployment.models_dir, "readOnly": True},
        ],
        # Loading a model and its warm-up requests may take minutes.
        "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": 120},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 10},
        "securityContext": restricted,
        **from_secret,
    }
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": "terrapair-serving"}},
            {"name": "models", **source},
        ],
    }
    if deployment.store:
        pod["initContainers"] = [
            {
                "name": name,
                "image": image,
                "command": command,
                "volumeMounts": [{"name": "models", "mountPath": MODELS_DIR}],
                "securityContext": restricted,
                **from_secret,
            }
            for name, image, command in _fetchers(models, deployment)
        ]
    # No `replicas`: each apply would undo what the autoscaler has set.
    return {
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
            "spec": pod,
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


def as_yaml(content: Mapping[str, Any]) -> str:
    """Return one Kubernetes object, or another document, as YAML."""
    return str(yaml.dump(dict(content), Dumper=_Plain, sort_keys=False))


class _Plain(yaml.SafeDumper):
    """Writes repeated values in full: few people read YAML anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
