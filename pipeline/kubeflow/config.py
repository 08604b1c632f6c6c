"""KubeflowConfig: what the pods of a compiled pipeline get from the cluster.

Settings stand by kind of node. Those of a node are, from weak to strong: `default`, its
kind such as Trainer, its id such as Trainer-flood. Secrets are named, never written.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

DEFAULT = "default"
GPU_TYPES = ("nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe")
"""Resource names of the device plugins of GPUs.

Source: Kubernetes documentation, "Schedule GPUs"; README files of the three plugins.
"""
_MIG = re.compile(r"nvidia\.com/mig-\d+g\.\d+gb(\.[a-z]+)?$")
"""A slice of an NVIDIA GPU, such as nvidia.com/mig-1g.10gb."""
_CPU = re.compile(r"\d+(\.\d+)?m?$")
_BYTES = re.compile(r"\d+(\.\d+)?([kMGTPE]i?)?$")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")


def _check_name(key: str, value: str) -> None:
    if not _NAME.match(value):
        raise ValueError(
            f"{key} must be a name of Kubernetes: lower case letters, digits, - and ., got "
            f"{value!r}"
        )


def _check_path(key: str, value: str) -> None:
    if not value.startswith("/"):
        raise ValueError(f"{key} must be an absolute path, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class SecretConfig:
    """A Secret of the cluster, by reference.

    Attributes:
        name: of the Secret.
        env: key in the Secret -> environment variable that gets its value.
        mount_path: folder where its keys appear as files; "" = nowhere.
    """

    name: str
    env: dict[str, str] = field(default_factory=dict)
    mount_path: str = ""

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        if not self.env and not self.mount_path:
            raise ValueError(f"env or mount_path must be given for secret {self.name!r}")
        for variable in self.env.values():
            if not _VARIABLE.match(variable):
                raise ValueError(f"env must name environment variables, got {variable!r}")
        if self.mount_path:
            _check_path("mount_path", self.mount_path)


@dataclass(frozen=True, kw_only=True)
class VolumeConfig:
    """A volume of a pod; `claim` or `size` says which kind.

    Attributes:
        mount_path: folder where it appears.
        claim: name of a PersistentVolumeClaim that is there; "" = none.
        size: of an empty volume that lives as long as the pod, such as 20Gi.
        storage_class: that gives the empty volume; "" = the cluster's default.
        in_memory: the empty volume is in memory, and counts for the pod's limit.
    """

    mount_path: str
    claim: str = ""
    size: str = ""
    storage_class: str = ""
    in_memory: bool = False

    def __post_init__(self) -> None:
        _check_path("mount_path", self.mount_path)
        if bool(self.claim) == bool(self.size):
            raise ValueError(
                f"claim or size must be given, one of them, got {self.claim!r} and {self.size!r}"
            )
        if self.claim:
            _check_name("claim", self.claim)
        elif not _BYTES.match(self.size):
            raise ValueError(f"size must be a size such as 20Gi, got {self.size!r}")
        if self.claim and (self.storage_class or self.in_memory):
            raise ValueError(
                f"storage_class and in_memory belong to an empty volume, got claim {self.claim!r}"
            )
        if self.storage_class and self.in_memory:
            raise ValueError(
                "storage_class belongs to an empty volume that is not in memory, got "
                f"{self.storage_class!r}"
            )


@dataclass(frozen=True, kw_only=True)
class TolerationConfig:
    """A taint of nodes that a pod tolerates; see Kubernetes' `tolerations`."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoExecute", "NoSchedule", "PreferNoSchedule"] = ""


@dataclass(frozen=True, kw_only=True)
class PodConfig:
    """The pods of one kind of node. None = as the weaker setting, or Kubernetes' own.

    Attributes:
        cpu: that is reserved, such as 500m or 2.
        cpu_limit: beyond which the pod is slowed down.
        memory: that is reserved, such as 4Gi.
        memory_limit: beyond which the pod is killed. 31 MB of it are Kubeflow's own.
        gpu_type: resource name of the GPUs; their model is chosen by `node_selector`.
        num_gpus: number of GPUs.
        scratch: size of a volume for temporary files, such as 20Gi. Kubeflow cannot
            reserve the disk of the node.
        scratch_class: storage class of that volume; "" = the cluster's default.
        node_selector: label of nodes -> value.
        tolerations: taints that the pod tolerates.
        volumes: of the pod.
        secrets: of the pod.
        env: environment variable -> value; never a secret.
        pull_policy: when the image is pulled.
        pull_secrets: names of Secrets with which it is pulled.
        timeout_seconds: after which the pod is ended, from its creation.
        num_retries: of a pod that was killed or evicted.
    """

    cpu: str | None = None
    cpu_limit: str | None = None
    memory: str | None = None
    memory_limit: str | None = None
    gpu_type: str | None = None
    num_gpus: int | None = None
    scratch: str | None = None
    scratch_class: str | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[TolerationConfig, ...] | None = None
    volumes: tuple[VolumeConfig, ...] | None = None
    secrets: tuple[SecretConfig, ...] | None = None
    env: dict[str, str] | None = None
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    pull_secrets: tuple[str, ...] | None = None
    timeout_seconds: int | None = None
    num_retries: int | None = None

    def __post_init__(self) -> None:
        for key in ("cpu", "cpu_limit"):
            value = getattr(self, key)
            if value is not None and not _CPU.match(value):
                raise ValueError(
                    f"{key} must be a number of cores such as '2' or 500m, got {value!r}"
                )
        for key in ("memory", "memory_limit", "scratch"):
            value = getattr(self, key)
            if value is not None and not _BYTES.match(value):
                raise ValueError(f"{key} must be a size such as 4Gi, got {value!r}")
        if self.gpu_type is not None and not (
            self.gpu_type in GPU_TYPES or _MIG.match(self.gpu_type)
        ):
            raise ValueError(
                f"gpu_type must be one of {', '.join(GPU_TYPES)} or nvidia.com/mig-..., got "
                f"{self.gpu_type!r}; the model of a GPU is chosen by node_selector"
            )
        for key, least in (("num_gpus", 0), ("timeout_seconds", 1), ("num_retries", 0)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} must be at least {least}, got {value}")
        for name in self.env or ():
            if not _VARIABLE.match(name):
                raise ValueError(f"env must name environment variables, got {name!r}")
        for name in self.pull_secrets or ():
            _check_name("pull_secrets", name)

    @property
    def variables(self) -> set[str]:
        """Environment variables that `env` and `secrets` set."""
        secret = {name for one in self.secrets or () for name in one.env.values()}
        return secret | set(self.env or ())


@dataclass(frozen=True, kw_only=True)
class KubeflowConfig:
    """How the tasks of a compiled pipeline run.

    Attributes:
        pods: "default", kind or id of a node -> its pods. `begin` and `report` are the
            first and the last task.
    """

    pods: dict[str, PodConfig] = field(default_factory=dict)

    def pod_of(self, node: str) -> PodConfig:
        """Return the settings of a node's pod."""
        return merged(self.pods, DEFAULT, kind_of(node), node)


def kind_of(node: str) -> str:
    """Return the kind of a node: Trainer for Trainer-flood."""
    return node.partition("-")[0]


def merged(pods: Mapping[str, PodConfig], *keys: str) -> PodConfig:
    """Return the settings under several keys; those of later keys are stronger."""
    values: dict[str, object] = {}
    for key in dict.fromkeys(keys):
        found = pods.get(key, PodConfig())
        for one in dataclasses.fields(found):
            if (value := getattr(found, one.name)) is not None:
                values[one.name] = value
    return dataclasses.replace(PodConfig(), **values)  # type: ignore[arg-type]
