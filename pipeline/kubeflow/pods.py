"""Put the settings of a pod on a task of kfp.

PodConfig and a task -> the same task with resources, GPUs, secrets, volumes and so on,
as `kfp` and `kfp-kubernetes` write them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kfp import kubernetes
from kfp.dsl import PipelineTask

from pipeline.kubeflow.config import PodConfig, SecretConfig, TolerationConfig, VolumeConfig

SCRATCH_PATH = "/scratch"
"""Where the volume for temporary files appears."""
SCRATCH_VARIABLE = "TMPDIR"
"""Environment variable that names it for programs."""
_RETRY_SECONDS = ("30s", 2.0, "600s")
"""First wait before a retry of a pod, its growth, and the longest wait."""


def apply(task: PipelineTask, pod: PodConfig) -> None:
    """Put all settings of `pod` on `task`."""
    _apply_resources(task, pod)
    env = dict(pod.env or {})
    if pod.scratch is not None:
        kubernetes.add_ephemeral_volume(
            task,
            volume_name="scratch",
            mount_path=SCRATCH_PATH,
            access_modes=["ReadWriteOnce"],
            size=pod.scratch,
            storage_class_name=pod.scratch_class or None,
        )
        env.setdefault(SCRATCH_VARIABLE, SCRATCH_PATH)
    for name, value in sorted(env.items()):
        task.set_env_variable(name, value)
    for label, value in sorted((pod.node_selector or {}).items()):
        kubernetes.add_node_selector(task, label, value)
    _apply_tolerations(task, pod.tolerations or ())
    for number, volume in enumerate(pod.volumes or ()):
        _apply_volume(task, volume, f"volume-{number}")
    for secret in pod.secrets or ():
        _apply_secret(task, secret)
    if pod.pull_policy is not None:
        kubernetes.set_image_pull_policy(task, pod.pull_policy)
    if pod.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(pod.pull_secrets))
    if pod.timeout_seconds is not None:
        kubernetes.set_timeout(task, pod.timeout_seconds)
    if pod.num_retries:
        first, factor, longest = _RETRY_SECONDS
        task.set_retry(
            pod.num_retries,
            backoff_duration=first,
            backoff_factor=factor,
            backoff_max_duration=longest,
        )


def _apply_resources(task: PipelineTask, pod: PodConfig) -> None:
    if pod.cpu is not None:
        task.set_cpu_request(pod.cpu)
    if pod.cpu_limit is not None:
        task.set_cpu_limit(pod.cpu_limit)
    if pod.memory is not None:
        task.set_memory_request(pod.memory)
    if pod.memory_limit is not None:
        task.set_memory_limit(pod.memory_limit)
    if pod.num_gpus:
        task.set_accelerator_type(pod.gpu_type)
        task.set_accelerator_limit(pod.num_gpus)


def _apply_tolerations(task: PipelineTask, tolerations: Sequence[TolerationConfig]) -> None:
    for one in tolerations:
        kubernetes.add_toleration(
            task,
            key=one.key or None,
            operator=one.operator,
            value=one.value or None,
            effect=one.effect or None,
        )


def _apply_volume(task: PipelineTask, volume: VolumeConfig, name: str) -> None:
    if volume.claim:
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.mount_path)
    elif volume.in_memory:
        kubernetes.empty_dir_mount(
            task,
            volume_name=name,
            mount_path=volume.mount_path,
            medium="Memory",
            size_limit=volume.size,
        )
    else:
        kubernetes.add_ephemeral_volume(
            task,
            volume_name=name,
            mount_path=volume.mount_path,
            access_modes=["ReadWriteOnce"],
            size=volume.size,
            storage_class_name=volume.storage_class or None,
        )


def _apply_secret(task: PipelineTask, secret: SecretConfig) -> None:
    if secret.env:
        kubernetes.use_secret_as_env(task, secret.name, dict(sorted(secret.env.items())))
    if secret.mount_path:
        kubernetes.use_secret_as_volume(task, secret.name, mount_path=secret.mount_path)
