"""A cluster that a drill works in: kubectl, in a namespace of the drill's own.

It needs `kubectl` on PATH, and KUBECONFIG.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeVar

VOLUMES = "terrapair-drill"
"""Label of the volumes that a drill makes; its value is the namespace."""
_PEAK = "cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes /sys/fs/cgroup/memory.peak 2>/dev/null"
_CANNOT_START = ("ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName")
_Found = TypeVar("_Found")


class DrillError(Exception):
    """The drill cannot go on; the message is one line."""


class Cluster:
    """kubectl in one namespace, which exists within the `with` block."""

    def __init__(self, namespace: str, timeout_seconds: float, keep: bool) -> None:
        """Take a cluster by the environment, as kubectl does.

        Args:
            namespace: is made and removed.
            timeout_seconds: the longest wait for one thing.
            keep: leave the namespace as it is at the end.

        Raises:
            DrillError: there is no kubectl, no KUBECONFIG, or no answer.
        """
        self._namespace, self._timeout, self._keep = namespace, timeout_seconds, keep
        if not shutil.which("kubectl"):
            raise DrillError("the drill needs kubectl on PATH: install Kubernetes' client")
        if "KUBECONFIG" not in os.environ:
            raise DrillError("the drill needs a cluster: set KUBECONFIG to its file")
        self._run("get", "nodes")

    def __enter__(self) -> Cluster:
        self._run("create", "namespace", self._namespace)
        # Pods are refused before a controller has made the account.
        self.wait("the service account", lambda: "default" in self._run("get", "serviceaccounts"))
        return self

    def __exit__(self, *_: object) -> None:
        if not self._keep:
            self._run("delete", "namespace", self._namespace, "--timeout=120s")
            self._run("delete", "persistentvolume", f"--selector={VOLUMES}={self._namespace}")

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Create or change objects, with strict validation."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self._run("apply", "--validate=strict", "--filename=-", stdin=text)

    def items(self, kind: str, **labels: str) -> list[dict[str, Any]]:
        """Return objects with these labels, the oldest first."""
        selector = ",".join(f"{key.replace('_', '-')}={value}" for key, value in labels.items())
        found = self._run(
            "get", kind, f"--selector={selector}", "--output=json",
            "--sort-by=.metadata.creationTimestamp",
        )  # fmt: skip
        return json.loads(found)["items"]

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Return the events with this reason."""
        found = self._run("get", "events", f"--field-selector=reason={reason}", "--output=json")
        return json.loads(found)["items"]

    def execute(self, pod: str, *command: str) -> str:
        """Run a command in a pod; return its output, also if it fails."""
        done = self._process("exec", pod, "--", *command)
        return done.stdout + done.stderr

    def peak_gb(self, pod: str) -> float | None:
        """Return the most memory that a running pod used, with the page cache, in GB.

        None: the pod does not run, or its node does not tell.
        """
        peak = self.execute(pod, "/bin/sh", "-c", _PEAK).split()
        return round(int(peak[0]) / 1e9, 2) if peak and peak[0].isdigit() else None

    def logs(self, pod: str) -> str:
        """Return all that a pod has printed; "" before its container has started."""
        return self._process("logs", pod).stdout

    def phase(self, pod: str) -> str:
        """Return the phase of a pod, such as Running.

        Raises:
            DrillError: it cannot start, or there is no such pod.
        """
        found = json.loads(self._run("get", "pod", pod, "--output=json"))
        check_started(found)
        return found["status"].get("phase", "Pending")

    def delete_pod(self, pod: str, *options: str) -> None:
        """Delete a pod and wait until it is gone."""
        self._run("delete", "pod", pod, *options)

    def call(self, pod: Mapping[str, Any], name: str, script: str) -> str:
        """Run a shell script in a pod of its own; return what it printed.

        Args:
            pod: specification of a pod with one container.
            name: of the new pod.
            script: for /bin/sh.

        Raises:
            DrillError: it failed.
        """
        spec = deepcopy(dict(pod))
        spec["containers"][0]["args"] = [f"set -eu\n{script}"]
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

        ended = self.wait(f"the pod {name}", lambda: {self.phase(name)} & {"Succeeded", "Failed"})
        printed = self.logs(name)
        self.delete_pod(name)
        if ended != {"Succeeded"}:
            raise DrillError(f"the pod {name} failed: {printed.strip()[-500:]}")
        return printed

    def wait(self, what: str, look: Callable[[], _Found]) -> _Found:
        """Return the first true value of `look`, which is called every two seconds.

        Raises:
            DrillError: there is none within the time limit.
        """
        end = time.monotonic() + self._timeout
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(2.0)
        raise DrillError(f"waited {self._timeout:.0f} s for {what}: raise --timeout")

    def _run(self, *arguments: str, stdin: str | None = None) -> str:
        done = self._process(*arguments, stdin=stdin)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise DrillError(f"kubectl {' '.join(arguments[:2])}: {last}")
        return done.stdout

    def _process(
        self, *arguments: str, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", f"--namespace={self._namespace}", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def check_started(pod: Mapping[str, Any]) -> None:
    """Raise if a pod waits for something that never comes.

    Raises:
        DrillError: its image is not on the node, or its volume is not there.
    """
    for status in pod["status"].get("containerStatuses", []):
        reason = status["state"].get("waiting", {}).get("reason", "")
        if reason in _CANNOT_START:
            raise DrillError(f"the node cannot start {status['image']}: {reason}: load the image")
    for condition in pod["status"].get("conditions", []):
        message = condition.get("message", "")
        if condition.get("reason") == "Unschedulable" and "unbound immediate" in message:
            raise DrillError("the cluster provides no volumes: give --host-path, a folder on it")


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
