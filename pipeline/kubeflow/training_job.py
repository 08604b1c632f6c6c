"""Manifests of a training on several machines: an Indexed Job and a headless Service.

TrainingJob -> plain values of two Kubernetes objects. Worker 0 runs a Trainer of the
pipeline as `terrapair node` does anywhere, so that lineage, cache and publication are
those of the pipeline. The other workers follow it (`terrapair follow`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

PORT = 2222
"""Of the workers among themselves."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?$")
"""Names of pods are those of the Job with an index, and at most 63 characters."""
_LABEL = "app.kubernetes.io/component"
_TRIES = 3
_WORKER = "WORKER"
_PERMANENT = [2, 3, 4]
"""Exit codes that another try would have again."""
# Arguments: root, run id and node.
_SCRIPT = f"""if [ "${_WORKER}" -eq 0 ]; then
  exec terrapair node --run "$1" --run-id "$2" --node "$3"
fi
exec terrapair follow
"""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training on several machines.

    Attributes:
        root: of the run, on an object store.
        run_id: of the run.
        node: Trainer of the pipeline, such as Trainer-flood.
        image: of the containers.
        num_workers: machines.
        num_cores: CPU cores of each.
        memory: of each, as Kubernetes writes it.
        num_gpus: of each.
        secret: Secret whose keys become environment variables, such as the credentials
            of the object store and of the database; "" = none.
        name: of Job and Service.
    """

    root: str
    run_id: str
    node: str
    image: str
    num_workers: int = 2
    num_cores: int = 4
    memory: str = "16Gi"
    num_gpus: int = 0
    secret: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if "://" not in self.root:
            raise ValueError(
                f"root: must be an object store (s3://, gs://), which all workers can read, got "
                f"{self.root!r}"
            )
        if not self.image:
            raise ValueError("image: none is given: set container_image or --image")
        if not self.node.startswith("Trainer-"):
            raise ValueError(f"node: must be a Trainer, such as Trainer-flood, got {self.node!r}")
        if self.num_workers < 2:
            raise ValueError(
                f"num_workers must be at least 2, got {self.num_workers}: one worker needs no Job "
                "of its own"
            )
        if not self.name:
            object.__setattr__(self, "name", self.node.lower())
        if not _NAME.match(self.name):
            raise ValueError(
                "name: must be up to 52 small letters, digits and dashes, and begin with a letter, "
                f"got {self.name!r}"
            )

    @property
    def folder(self) -> str:
        """Where the first worker tells the others what to do."""
        return f"{self.root.rstrip('/')}/runs/{self.run_id}/workers/{self.node}"

    @property
    def hosts(self) -> list[str]:
        """Host and port of each worker, as the Service names its pods."""
        return [f"{self.name}-{index}.{self.name}:{PORT}" for index in range(self.num_workers)]


def manifests(job: TrainingJob) -> list[dict[str, Any]]:
    """Return the Service and the Job, as plain values.

    A worker that is lost ends the others. The Job starts all of them again, and they go
    on from the last checkpoint. The end of worker 0 ends the Job, because a Trainer
    whose result is in the cache calls nobody.
    """
    labels = {"app.kubernetes.io/name": "terrapair", _LABEL: job.name}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": job.name, "labels": labels},
        "spec": {
            "clusterIP": "None",
            "selector": labels,
            # Workers look for each other before they are ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "grpc", "port": PORT}],
        },
    }
    spec = {
        "completionMode": "Indexed",
        "completions": job.num_workers,
        "parallelism": job.num_workers,
        "backoffLimit": _TRIES * job.num_workers,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "podFailurePolicy": {
            "rules": [
                # A drained node is no failure of the job.
                {
                    "action": "Ignore",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "worker",
                        "operator": "In",
                        "values": _PERMANENT,
                    },
                    "onPodConditions": [],
                },
            ]
        },
        "template": {"metadata": {"labels": labels}, "spec": _pod(job, labels)},
    }
    return [
        service,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job.name, "labels": labels},
            "spec": spec,
        },
    ]


def _pod(job: TrainingJob, labels: dict[str, str]) -> dict[str, Any]:
    """Return the pod of a worker: as the image's user, with a read-only root."""
    limits = {"memory": job.memory}
    if job.num_gpus:
        limits["nvidia.com/gpu"] = str(job.num_gpus)
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    mounts = [{"name": "scratch", "mountPath": "/tmp"}]
    if job.num_gpus:
        # GPUs of one machine exchange gradients through it; the default has 64 MiB.
        volumes.append({"name": "memory", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "memory", "mountPath": "/dev/shm"})
    container: dict[str, Any] = {
        "name": "worker",
        "image": job.image,
        "command": ["/bin/sh", "-c"],
        "args": [_SCRIPT, "terrapair", job.root, job.run_id, job.node],
        "env": _environment(job),
        "ports": [{"name": "grpc", "containerPort": PORT}],
        "resources": {"requests": {**limits, "cpu": str(job.num_cores)}, "limits": limits},
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if job.secret:
        container["envFrom"] = [{"secretRef": {"name": job.secret}}]
    return {
        # The Job replaces pods, so the kubelet restarts none.
        "restartPolicy": "Never",
        # With the index of the pod, this is the name by which the others find it.
        "subdomain": job.name,
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Two workers on one machine would share its memory and its network.
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": {"matchLabels": labels},
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }
                ]
            }
        },
        "containers": [container],
        "volumes": volumes,
    }


def _environment(job: TrainingJob) -> list[dict[str, Any]]:
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    cluster = json.dumps({"worker": job.hosts})
    # The kubelet puts the index in the place of $(WORKER), which must stand before.
    task = f'{{"type": "worker", "index": $({_WORKER})}}'
    return [
        {"name": _WORKER, "valueFrom": {"fieldRef": {"fieldPath": index}}},
        {"name": "TF_CONFIG", "value": f'{{"cluster": {cluster}, "task": {task}}}'},
        {"name": "TERRAPAIR_WORKERS_DIR", "value": job.folder},
    ]
