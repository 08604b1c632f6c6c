"""Manifests of a training on several machines: an Indexed Job, or a JobSet of one.

RunConfig and TrainingJob -> plain values of Kubernetes objects. Worker 0 runs a Trainer
of the pipeline as `terrapair node` does anywhere, so that lineage, cache and
publication are those of the pipeline. The other workers follow it (`terrapair follow`).
Their pods get what `kubeflow.pods` has for this node.

Kubernetes itself restarts the pod that was lost, and the others when they notice it. A
JobSet restarts all at once (https://jobset.sigs.k8s.io).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from beam_jobs.contracts import settings
from pipeline.config import RunConfig
from pipeline.kubeflow.config import PodConfig
from pipeline.kubeflow.pods import SCRATCH_PATH, SCRATCH_VARIABLE

PORT = 2222
"""Port on which the workers reach each other."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?$")
"""Names of pods are those of the Job with an index, and at most 63 characters."""
Kind = Literal["job", "jobset"]
_REPLICATED = "workers"
"""Name of the only Job in a JobSet, which gets the name JOBSET-workers-0."""
_LABEL = "app.kubernetes.io/component"
_SHARED_MEMORY = "/dev/shm"
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
        pod: of each worker.
        name: of Job and Service, or of the JobSet; "" = from the node.
        kind: "jobset" needs its controller in the cluster.
    """

    root: str
    run_id: str
    node: str
    image: str
    num_workers: int
    pod: PodConfig = field(default_factory=PodConfig)
    name: str = ""
    kind: Kind = "job"

    def __post_init__(self) -> None:
        if "://" not in self.root:
            raise ValueError(
                "root: must be an object store (s3://, gs://), which all workers can read, got "
                f"{self.root!r}"
            )
        if not self.image:
            raise ValueError("container_image: needed for the pods, got none")
        if self.pod.num_gpus and self.pod.gpu_type is None:
            raise ValueError(
                f"kubeflow.pods: {self.node} has num_gpus {self.pod.num_gpus} and no gpu_type: set "
                "one, such as nvidia.com/gpu"
            )
        if not self.node.startswith("Trainer-"):
            raise ValueError(f"node: must be a Trainer, such as Trainer-flood, got {self.node!r}")
        if self.num_workers < 2:
            raise ValueError(
                f"num_workers must be at least 2, got {self.num_workers}: one worker needs no Job "
                "of its own"
            )
        if not self.name:
            object.__setattr__(self, "name", self.node.lower())
        if not _NAME.match(self.job_name):
            raise ValueError(
                "name: must be up to 52 small letters, digits and dashes (42 for a jobset), and "
                f"begin with a letter, got {self.name!r}"
            )

    @property
    def job_name(self) -> str:
        """Name of the Job, from which its pods have theirs."""
        return self.name if self.kind == "job" else f"{self.name}-{_REPLICATED}-0"

    @property
    def folder(self) -> str:
        """Where the first worker tells the others what to do."""
        return f"{self.root.rstrip('/')}/runs/{self.run_id}/workers/{self.node}"

    @property
    def hosts(self) -> list[str]:
        """Host and port of each worker, as the Service names its pods."""
        return [f"{self.job_name}-{index}.{self.name}:{PORT}" for index in range(self.num_workers)]


def job_of(config: RunConfig, *, node: str, **given: Any) -> TrainingJob:
    """Return the job for a Trainer of a run.

    Args:
        config: of the run.
        node: Trainer of the run.
        given: run_id, num_workers, name and kind; see `TrainingJob`.

    Raises:
        ValueError: an argument or a setting is wrong.
    """
    return TrainingJob(
        root=config.root,
        node=node,
        image=config.container_image,
        pod=config.kubeflow.pod_of(node),
        **given,
    )


def manifests(job: TrainingJob) -> list[dict[str, Any]]:
    """Return the Service and the Job, or the JobSet, as plain values.

    The end of worker 0 ends the Job, because a Trainer whose result is in the cache
    calls nobody.
    """
    return [_job_set(job)] if job.kind == "jobset" else [_service(job), _job(job)]


def _labels(job: TrainingJob) -> dict[str, str]:
    return {"app.kubernetes.io/name": "terrapair", _LABEL: job.name}


def _service(job: TrainingJob) -> dict[str, Any]:
    """Return what gives each pod a name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": job.name, "labels": _labels(job)},
        "spec": {
            "clusterIP": "None",
            "selector": _labels(job),
            # Workers look for each other before they are ready.
            "publishNotReadyAddresses": True,
            "ports": [{"name": "grpc", "port": PORT}],
        },
    }


def _job(job: TrainingJob) -> dict[str, Any]:
    """Return a Job that replaces each worker that ended.

    The others of a lost worker end some seconds later, and are replaced, too.
    """
    # A drained node is no failure of the job.
    drained = {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    # A loss costs a failure of each worker, and a second one if a new worker meets an
    # old one.
    spec = _job_spec(job, 2 * _tries(job) * job.num_workers)
    spec["podFailurePolicy"]["rules"].insert(0, drained)
    # With the index of the pod, this is the name by which the others find it.
    spec["template"]["spec"]["subdomain"] = job.name
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "labels": _labels(job)},
        "spec": spec,
    }


def _job_set(job: TrainingJob) -> dict[str, Any]:
    """Return a JobSet, which replaces all workers when one has failed.

    Its controller makes the Service and the subdomain of the pods.
    """
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": job.name, "labels": _labels(job)},
        "spec": {
            "network": {
                "enableDNSHostnames": True,
                "subdomain": job.name,
                "publishNotReadyAddresses": True,
            },
            "failurePolicy": {
                "maxRestarts": _tries(job),
                # No new worker meets an old one.
                "restartStrategy": "BlockingRecreate",
                "rules": [
                    {
                        "name": "permanent",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": _REPLICATED,
                    "replicas": 1,
                    # The first failure of a pod fails the Job.
                    "template": {"spec": _job_spec(job, 0)},
                }
            ],
        },
    }


def _tries(job: TrainingJob) -> int:
    """Return how often workers may be lost."""
    return 1 + (job.pod.num_retries or 0)


def _job_spec(job: TrainingJob, backoff_limit: int) -> dict[str, Any]:
    permanent = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "worker", "operator": "In", "values": _PERMANENT},
        "onPodConditions": [],
    }
    return {
        "completionMode": "Indexed",
        "completions": job.num_workers,
        "parallelism": job.num_workers,
        "backoffLimit": backoff_limit,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "podFailurePolicy": {"rules": [permanent]},
        "template": {"metadata": {"labels": _labels(job)}, "spec": _pod(job)},
    }


def _pod(job: TrainingJob) -> dict[str, Any]:
    """Return the pod of a worker: as the image's user, with a read-only root."""
    pod = job.pod
    mounted = list(_volumes(pod))
    container = {
        "name": "worker",
        "image": job.image,
        "imagePullPolicy": pod.pull_policy,
        "command": ["/bin/sh", "-c"],
        "args": [_SCRIPT, "terrapair", job.root.rstrip("/"), job.run_id, job.node],
        "env": [*_settings(pod), *_environment(job)],
        "ports": [{"name": "grpc", "containerPort": PORT}],
        "resources": _resources(pod),
        # The error line of a pod that failed is then in its status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": f"volume-{number}", "mountPath": path, **more}
            for number, (path, _, more) in enumerate(mounted)
        ],
    }
    # Two workers on one machine would share its memory and its network.
    apart = {
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": _labels(job)},
            "topologyKey": "kubernetes.io/hostname",
        },
    }
    return _given(
        {
            # The Job replaces pods, so the kubelet restarts none.
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "activeDeadlineSeconds": pod.timeout_seconds,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "affinity": {
                "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [apart]}
            },
            "nodeSelector": dict(pod.node_selector or {}),
            "tolerations": [_given(settings.to_dict(one)) for one in pod.tolerations or ()],
            "imagePullSecrets": [{"name": name} for name in pod.pull_secrets or ()],
            "containers": [_given(container)],
            "volumes": [
                {"name": f"volume-{number}", **source}
                for number, (_, source, _) in enumerate(mounted)
            ],
        }
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is neither None nor empty."""
    return {key: value for key, value in values.items() if value not in (None, "", {}, [])}


def _resources(pod: PodConfig) -> dict[str, Any]:
    gpus = {str(pod.gpu_type): str(pod.num_gpus)} if pod.num_gpus else {}
    return _given(
        {
            "requests": _given({"cpu": pod.cpu, "memory": pod.memory, **gpus}),
            "limits": _given({"cpu": pod.cpu_limit, "memory": pod.memory_limit, **gpus}),
        }
    )


def _settings(pod: PodConfig) -> Iterator[dict[str, Any]]:
    """Yield the environment variables that the run's settings name."""
    if pod.scratch is not None and SCRATCH_VARIABLE not in (pod.env or {}):
        yield {"name": SCRATCH_VARIABLE, "value": SCRATCH_PATH}
    for name, value in sorted((pod.env or {}).items()):
        yield {"name": name, "value": value}
    for secret in pod.secrets or ():
        for key, name in sorted(secret.env.items()):
            yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}


def _volumes(pod: PodConfig) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield path, source, and what else a mount has, of each volume."""
    yield "/tmp", {"emptyDir": {}}, {}
    if pod.scratch is not None:
        yield SCRATCH_PATH, _ephemeral(pod.scratch, pod.scratch_class or ""), {}
    for volume in pod.volumes or ():
        if volume.claim:
            source: dict[str, Any] = {"persistentVolumeClaim": {"claimName": volume.claim}}
        elif volume.in_memory:
            source = {"emptyDir": {"medium": "Memory", "sizeLimit": volume.size}}
        else:
            source = _ephemeral(volume.size, volume.storage_class)
        yield volume.mount_path, source, {}
    for secret in pod.secrets or ():
        if secret.mount_path:
            yield secret.mount_path, {"secret": {"secretName": secret.name}}, {"readOnly": True}
    if pod.num_gpus and all(one.mount_path != _SHARED_MEMORY for one in pod.volumes or ()):
        # GPUs of one machine exchange gradients through it; the default has 64 MiB.
        yield _SHARED_MEMORY, {"emptyDir": {"medium": "Memory"}}, {}


def _ephemeral(size: str, storage_class: str) -> dict[str, Any]:
    """Return a volume that a storage class gives, and that lives as long as the pod."""
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    }
    return {"ephemeral": {"volumeClaimTemplate": {"spec": _given(claim)}}}


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
