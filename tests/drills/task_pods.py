"""Run the tasks of a compiled pipeline as pods, as podman's containers, or as processes.

Task -> manifest of a pod, with the image, command, resources, environment, secrets and
volumes that the task declares -> how it ended. All reach servers on loopback: pods and
containers share the network of their node, which is this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.data.runs.compiled_tasks import Task
from tests.drills.cronjob import Cluster, DrillError, check_started

Secrets = Mapping[str, Mapping[str, str]]
"""Name of a Secret -> key -> value."""
KILLED = 137
"""Exit code of a program that got SIGKILL: the kernel's answer to a memory limit."""
MEMORY_VOLUME = "/dev/shm"
"""A volume in memory, which counts for the limit of its pod."""
_REPOSITORY = Path(__file__).parents[2]
_KNOWN = {
    "activeDeadlineSeconds", "emptyDirMounts", "imagePullPolicy", "nodeSelector", "pvcMount",
    "secretAsEnv", "secretAsVolume", "tolerations",
}  # fmt: skip
_RESOURCES = {
    "resourceCpuRequest": ("requests", "cpu"),
    "resourceMemoryRequest": ("requests", "memory"),
    "resourceCpuLimit": ("limits", "cpu"),
    "resourceMemoryLimit": ("limits", "memory"),
}
_LABEL = "terrapair-drill"
_FILL = ("dd", "if=/dev/zero", f"of={MEMORY_VOLUME}/full", "bs=1M")
_UNITS = {"Ki": "k", "Mi": "m", "Gi": "g"}
"""Kubernetes' units -> podman's, which are as large."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a pod, container or process ended.

    Attributes:
        exit_code: of its program; 137 after SIGKILL.
        reason: word of Kubernetes or podman, such as OOMKilled.
        outcome: that the task wrote; "" if it did not come so far.
        log: what it printed.
    """

    exit_code: int
    reason: str
    outcome: str
    log: str


class Place(Protocol):
    """Where tasks run."""

    outcomes: Path
    """Folder for their outcomes, as they see it."""

    def start(self, name: str, pod: Mapping[str, Any]) -> None:
        """Start a task.

        Args:
            name: of the pod; used once.
            pod: its specification.
        """

    def ended(self, name: str) -> Ended | None:
        """Return how it ended; None: it goes on."""

    def fill_memory(self, name: str) -> None:
        """Use memory in its pod until the kernel kills the task."""


def pod_of(task: Task) -> dict[str, Any]:
    """Return the specification of a task's pod.

    Beside what the task declares, the root file system is read-only, /tmp is empty, and
    the program has no rights.

    Raises:
        DrillError: the task declares what no pod here can have.
    """
    unknown = {*task.platform} - _KNOWN
    if unknown or "accelerator" in task.container.get("resources", {}):
        raise DrillError(
            f"{task.node} declares {', '.join(sorted(unknown)) or 'GPUs'}, which the drill does "
            "not give: leave it out of kubeflow.pods"
        )
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    for volume, mount in _volumes(task.platform):
        volumes.append(volume)
        mounts.append({"name": volume["name"], "mountPath": mount})
    resources: dict[str, dict[str, str]] = {}
    for key, value in task.container.get("resources", {}).items():
        if key in _RESOURCES:
            group, name = _RESOURCES[key]
            resources.setdefault(group, {})[name] = value
    container = {
        "name": "main",
        "image": task.container["image"],
        "command": task.command,
        "env": [*task.container.get("env", []), *_secret_variables(task.platform)],
        "resources": resources,
        "volumeMounts": mounts,
        # The outcome comes back as the pod's message.
        "terminationMessagePath": str(task.outcome_file),
        "imagePullPolicy": task.platform.get("imagePullPolicy", "IfNotPresent"),
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "hostNetwork": True,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": volumes,
        "tolerations": task.platform.get("tolerations", []),
        "nodeSelector": task.platform.get("nodeSelector", {}).get("labels", {}),
    }
    if "activeDeadlineSeconds" in task.platform:
        pod["activeDeadlineSeconds"] = int(task.platform["activeDeadlineSeconds"])
    return pod


def _secret_variables(platform: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for secret in platform.get("secretAsEnv", []):
        for one in secret["keyToEnv"]:
            source = {"name": secret["secretName"], "key": one["secretKey"]}
            yield {"name": one["envVar"], "valueFrom": {"secretKeyRef": source}}


def _volumes(platform: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield volumes, and where each of them appears."""
    for one in platform.get("emptyDirMounts", []):
        source = {"medium": one.get("medium", ""), "sizeLimit": one["sizeLimit"]}
        yield {"name": one["volumeName"], "emptyDir": source}, one["mountPath"]
    for one in platform.get("secretAsVolume", []):
        source = {"secretName": one["secretName"]}
        yield {"name": f"secret-{one['secretName']}", "secret": source}, one["mountPath"]
    for one in platform.get("pvcMount", []):
        source = {"claimName": one["constant"]}
        volume = {"name": f"claim-{one['constant']}", "persistentVolumeClaim": source}
        yield volume, one["mountPath"]


class Pods:
    """Tasks as pods of a cluster, whose only node is this machine."""

    outcomes = Path("/tmp/outcomes")

    def __init__(self, cluster: Cluster, secrets: Secrets) -> None:
        """Make the Secrets in the cluster's namespace."""
        self._cluster = cluster
        for name, values in secrets.items():
            cluster.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": name},
                    "stringData": dict(values),
                }
            )

    def start(self, name: str, pod: Mapping[str, Any]) -> None:
        metadata = {"name": name, "labels": {_LABEL: name}}
        self._cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(pod)}
        )

    def ended(self, name: str) -> Ended | None:
        (pod,) = self._cluster.items("pods", **{_LABEL: name})
        check_started(pod)
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
            return None
        (status,) = pod["status"]["containerStatuses"]
        end = status["state"]["terminated"]
        ended = Ended(
            exit_code=end["exitCode"],
            reason=end["reason"],
            outcome=end.get("message", ""),
            log=self._cluster.logs(name),
        )
        self._cluster.delete_pod(name)
        return ended

    def fill_memory(self, name: str) -> None:
        self._cluster.execute(name, *_FILL)


class Containers:
    """Tasks as podman's containers."""

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        """Prepare the folders that containers see.

        Args:
            folder: for outcomes and for secrets as files; exists.
            secrets: their values.

        Raises:
            DrillError: there is no podman.
        """
        if not shutil.which("podman"):
            raise DrillError("the drill needs podman on PATH: install it, or use processes")
        self.outcomes = folder / "outcomes"
        self.outcomes.mkdir()
        # For the user in the container.
        self.outcomes.chmod(0o777)
        self._folder, self._secrets = folder, secrets
        self._files: dict[str, str] = {}

    def start(self, name: str, pod: Mapping[str, Any]) -> None:
        (container,) = pod["containers"]
        self._files[name] = container["terminationMessagePath"]
        program, *arguments = container["command"]
        variables = _variables(container, self._secrets)
        limits = container["resources"].get("limits", {})
        command = [
            *("podman", "run", "--detach", "--name", name, "--network", "host"),
            *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"),
            *("--volume", f"{self.outcomes}:{self.outcomes}", "--entrypoint", program),
            # By name: the values of secrets are in no command line.
            *(part for variable in variables for part in ("--env", variable)),
            *self._mounts(name, pod),
        ]
        if "memory" in limits:
            size = limits["memory"]
            limit = f"{size[:-2]}{_UNITS[size[-2:]]}"
            command += ["--memory", limit, "--memory-swap", limit]
        if "cpu" in limits:
            command += ["--cpus", _cores(limits["cpu"])]
        command += [container["image"], *arguments]
        self._notes(name).mkdir(parents=True)
        _run(command, env={**os.environ, **variables}, cwd=self._notes(name))

    def _notes(self, name: str) -> Path:
        """Return the folder where podman starts a container.

        Podman's monitor leaves a file `oom` there when the kernel kills for memory.
        Podman 4.3 looks for it elsewhere, and reports no such kill.
        """
        return self._folder / "notes" / name

    def _mounts(self, name: str, pod: Mapping[str, Any]) -> Iterator[str]:
        (container,) = pod["containers"]
        volumes = {one["name"]: one for one in pod["volumes"]}
        for mount in container["volumeMounts"]:
            volume, path = volumes[mount["name"]], mount["mountPath"]
            if "emptyDir" in volume:
                yield from ("--tmpfs", f"{path}:mode=1777")
            elif "secret" in volume:
                secret = volume["secret"]["secretName"]
                folder = self._folder / "secrets" / name / secret
                folder.mkdir(parents=True)
                for key, value in self._secrets[secret].items():
                    (folder / key).write_text(value)
                yield from ("--volume", f"{folder}:{path}:ro")
            else:
                raise DrillError(f"{name} has a claim at {path}, which needs a cluster")

    def ended(self, name: str) -> Ended | None:
        form = "{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}"
        status, code, is_out = _run(["podman", "inspect", "--format", form, name]).split()
        if status in ("created", "initialized", "running", "stopping"):
            return None
        log = _run(["podman", "logs", name])
        _run(["podman", "rm", name])
        reason = "Completed" if code == "0" else "Error"
        if code == str(KILLED) and (is_out == "true" or (self._notes(name) / "oom").exists()):
            reason = "OOMKilled"
        return Ended(exit_code=int(code), reason=reason, outcome=_text(self._files[name]), log=log)

    def fill_memory(self, name: str) -> None:
        subprocess.run(["podman", "exec", name, *_FILL], capture_output=True, check=False)


class Processes:
    """Tasks as processes, each in an empty folder, with the variables of its task alone.

    There are no limits and no read-only root.
    """

    def __init__(self, folder: Path, secrets: Secrets) -> None:
        """Prepare the folders.

        Args:
            folder: for outcomes and working folders; exists.
            secrets: their values.
        """
        self.outcomes = folder / "outcomes"
        self._folder, self._secrets = folder, secrets
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._files: dict[str, str] = {}

    def start(self, name: str, pod: Mapping[str, Any]) -> None:
        (container,) = pod["containers"]
        self._files[name] = container["terminationMessagePath"]
        program, *arguments = container["command"]
        if program != "terrapair":
            raise DrillError(f"{name} runs {program}, and only terrapair is here")
        working = self._folder / "working" / name
        working.mkdir(parents=True)
        image = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "0", "HOME": str(working)}
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_REPOSITORY), **image}
        with (self._folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "pipeline", *arguments],
                cwd=working,
                env={**variables, **_variables(container, self._secrets)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ended(self, name: str) -> Ended | None:
        code = self._running[name].poll()
        if code is None:
            return None
        # A shell and Kubernetes say 128 and more for a signal, Python says less than 0.
        code = code if code >= 0 else 128 - code
        return Ended(
            exit_code=code,
            reason="Error" if code else "Completed",
            outcome=_text(self._files[name]),
            log=(self._folder / f"{name}.log").read_text(errors="replace"),
        )

    def fill_memory(self, name: str) -> None:
        """Kill the process: without a limit, that is what is left of it."""
        self._running[name].kill()


def _variables(container: Mapping[str, Any], secrets: Secrets) -> dict[str, str]:
    """Return the environment of a container."""
    found = {}
    for one in container["env"]:
        if "valueFrom" in one:
            source = one["valueFrom"]["secretKeyRef"]
            found[one["name"]] = secrets[source["name"]][source["key"]]
        else:
            found[one["name"]] = one["value"]
    return found


def _text(path: str) -> str:
    return Path(path).read_text() if os.path.exists(path) else ""


def _cores(cpu: str) -> str:
    return f"{int(cpu[:-1]) / 1000}" if cpu.endswith("m") else cpu


def _run(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise DrillError(f"{' '.join(command[:2])}: {last}")
    return done.stdout + done.stderr
