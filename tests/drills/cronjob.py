"""Run the CronJob of deploy/ on a real node, and kill its pods.

    export KUBECONFIG=<file of a cluster>
    python -m tests.drills.cronjob --image terrapair:latest

It needs a cluster, and the project's image on its node. The manifests
are those of deploy/kubernetes/retrain.yaml with a schedule of two minutes, the smallest
config with one task, simulated scenes and small resources, in a namespace that is
removed at the end.

Month 1: the first pod looks at its own user and root file system, and its program gets
SIGKILL. The second pod is deleted. The third one publishes. Its program is stopped until
the next due time, at which no other job may start. The next job finds nothing new. Month
2 brings scenes whose reflectance was divided by 10: the job is refused. Neither of these
two jobs may fail or be repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beam_jobs.contracts.errors import ExitCode
from tests.drills.cluster import VOLUMES, Cluster, DrillError, check_started, say

_REPOSITORY = Path(__file__).parents[2]
_MANIFESTS = _REPOSITORY / "deploy" / "kubernetes" / "retrain.yaml"
_SMOKE = _REPOSITORY / "pipeline" / "configs" / "smoke.yaml"
_NAMESPACE = "terrapair-drill"
_SCHEDULE = "*/2 * * * *"
_RESOURCES = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "8Gi"}}
_ROOT = "/data/run"
_CATALOGS = ("/data/month-1/items.ndjson", "/data/month-2/items.ndjson")
_SIMULATE = "terrapair simulate --set num_places=4 --set num_dates=1 --set size_px=256 --quiet"
_POISON = """
import json, pathlib, rasterio
for line in open('/data/month-2/items.ndjson'):
    item = json.loads(line)
    if item['properties']['constellation'] == 'sentinel-2':
        path = pathlib.Path('/data/month-2') / item['assets']['data']['href']
        with rasterio.open(path, 'r+') as raster:
            raster.write(raster.read() // 10)
"""
_SIGNAL = """
import os, pathlib, signal, sys
for status in pathlib.Path('/proc').glob('[0-9]*/stat'):
    parent = status.read_text().rpartition(')')[2].split()[1]
    if parent == '1':
        # First: a container that ends kills this program, too.
        print('sent', flush=True)
        os.kill(int(status.parent.name), signal.Signals[sys.argv[1]])
"""
"""Send a signal to what the container's shell started."""
_LOOK = """
id -u
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status
touch /opt/terrapair/written 2>&1
"""
_STAGE_DONE = re.compile(r"^✓ (?P<name>.+) \((?P<seconds>[\d.]+) s\)", re.MULTILINE)
_TASK = "landcover"
_TRAININGS = ("Trainer-pretrain", f"Trainer-{_TASK}")
"""After the first, the first pod is killed; after the second, the second one is deleted."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """What the cluster needs beside the manifests.

    Attributes:
        image: the project's image.
        pull_policy: of the image; "Never" if it was loaded by hand.
        host_path: folder on the node for the volume; "" = the default StorageClass.
        host_network: for nodes without a network of pods.
    """

    image: str
    pull_policy: str = "IfNotPresent"
    host_path: str = ""
    host_network: bool = False


def run_config(catalogs: Sequence[str]) -> str:
    """Return the smallest config with one task, and all files on the volume, as YAML."""
    config = yaml.safe_load(_SMOKE.read_text())
    config["tasks"] = [task for task in config["tasks"] if task["use"] == _TASK]
    config["root"] = _ROOT
    config["catalogs"] = [{"layout": "stac", "path": path} for path in catalogs]
    return yaml.safe_dump(config, sort_keys=False)


def overlay(documents: Sequence[dict[str, Any]], node: Node) -> list[dict[str, Any]]:
    """Return the manifests of deploy/ with what the drill changes.

    Args:
        documents: ConfigMap, claim and CronJob of deploy/kubernetes/retrain.yaml.
        node: what the cluster needs.
    """
    settings, claim, cron_job = deepcopy(list(documents))
    settings["data"]["run.yaml"] = run_config(_CATALOGS[:1])
    claim["spec"]["resources"]["requests"]["storage"] = "2Gi"
    cron_job["spec"]["schedule"] = _SCHEDULE
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    container |= {
        "image": node.image,
        "imagePullPolicy": node.pull_policy,
        "resources": _RESOURCES,
    }
    if node.host_network:
        pod["hostNetwork"] = True
    if not node.host_path:
        return [settings, claim, cron_job]
    claim["spec"]["storageClassName"] = ""
    any_node = {"key": "kubernetes.io/hostname", "operator": "Exists"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": _NAMESPACE, "labels": {VOLUMES: _NAMESPACE}},
        "spec": {
            "capacity": {"storage": "2Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            # Not hostPath: kubelet gives a local volume, like those of clouds, to fsGroup.
            "local": {"path": node.host_path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [any_node]}]}},
        },
    }
    return [settings, volume, claim, cron_job]


class Drill:
    """The steps of the drill, its figures, and what was wrong."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        """Prepare the manifests."""
        documents = overlay(list(yaml.safe_load_all(_MANIFESTS.read_text())), node)
        self._cluster = cluster
        self._settings, *self._volume, self._cron_job = documents
        self._pod = self._cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        self.found: dict[str, Any] = {"pods": []}
        self.faults: list[str] = []

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a fault if two values differ."""
        if found != wanted:
            self.faults.append(f"{what}: {found!r}, not {wanted!r}")

    def run(self) -> None:
        """Do all steps, and note the figures."""
        self._cluster.apply(self._settings, *self._volume)
        say("simulating the scenes of month 1")
        self._cluster.call(self._pod, "month-1", f"{_SIMULATE} --output /data/month-1")
        self._cluster.apply(self._cron_job)
        say(f"waiting for the first job of {_SCHEDULE!r}")
        first = self._next_job(())
        self._killed_and_deleted(first)
        self._published(first)
        idle = self._result((first,), "nothing_new", ExitCode.NOTHING_NEW)
        earlier = [job["metadata"]["name"] for job in self._cluster.items("jobs")]

        say("simulating the scenes of month 2, and dividing their reflectance by 10")
        poison = f"python - <<'END'\n{_POISON}\nEND"
        script = f"{_SIMULATE} --set seed=99 --output /data/month-2\n{poison}"
        self._cluster.call(self._pod, "month-2", script)
        self._settings["data"]["run.yaml"] = run_config(_CATALOGS)
        self._cluster.apply(self._settings)
        self._suspend(False)
        refused = self._result(earlier, "refused", ExitCode.REFUSED)
        self.found["jobs"] = [first, idle, refused]
        self.expect("in service at the end", self._served(), self.found["in_service"])

    def _killed_and_deleted(self, job: str) -> None:
        """Kill the first pod of a job from within, and delete the second one."""
        pod = self._next_pod(job, ())
        self._await_stage(pod, "import TFX")
        user, *rest = self._cluster.execute(pod, "/bin/sh", "-c", _LOOK).strip().splitlines()
        self.found["container"] = [user, *(" ".join(line.split()) for line in rest)]
        self.expect("user", user, "1000")
        limits = {name.rstrip(":"): int(value, 16) for name, value in map(str.split, rest[:3])}
        self.expect("rights", limits, {"CapEff": 0, "NoNewPrivs": 1, "Seccomp": 2})
        self.expect("read-only root", "Read-only file system" in " ".join(rest[3:]), True)

        self._await_stage(pod, _TRAININGS[0])
        self._note(pod, "SIGKILL")
        # As the kernel does without memory.
        self._signal(pod, "SIGKILL")
        second = self._next_pod(job, (pod,))
        (state,) = self._cluster.items("pods", job_name=job)[0]["status"]["containerStatuses"]
        self.expect("exit code of the killed pod", state["state"]["terminated"]["exitCode"], 137)

        self._await_stage(second, _TRAININGS[1])
        self._note(second, "deleted")
        self._cluster.delete_pod(second)
        third = self._next_pod(job, (pod, second))
        say("waiting for the next due time, which must start no second job")
        # A quick pod would end before that time.
        self._signal(third, "SIGSTOP")
        self._cluster.wait("JobAlreadyActive", lambda: self._cluster.events("JobAlreadyActive"))
        self.expect("busy jobs", self._active_jobs(), [job])
        self._signal(third, "SIGCONT")
        self._await_end(job)
        self._note(third, "ended")

    def _signal(self, pod: str, name: str) -> None:
        """Send a signal to the program of a pod, as soon as it has started."""
        self._cluster.wait(
            f"the program of {pod}",
            lambda: "sent" in self._cluster.execute(pod, "python", "-c", _SIGNAL, name).split(),
        )

    def _published(self, job: str) -> None:
        """Check that a job published, and that its last pod began where others ended."""
        self._check_job(job, num_failed=2)
        for training, pods in zip(
            _TRAININGS, (self.found["pods"], self.found["pods"][1:]), strict=True
        ):
            first, *others = (pod["trainings"][training] for pod in pods)
            # A training from the cache takes a fraction of a second.
            is_repeated = [seconds > first / 4 for seconds in others]
            self.expect(f"{training} was repeated", any(is_repeated), False)
        outcomes = [attempt["outcome"] for attempt in self._attempts()]
        self.expect("outcomes", outcomes[:3], ["unfinished", "unfinished", "published"])
        self.found["in_service"] = self._served()
        self.expect("in service", self.found["in_service"], {"encoder": 1, _TASK: 1})

    def _result(self, earlier: Sequence[str], outcome: str, code: ExitCode) -> str:
        """Return the next job, which must end with one pod and without a failure."""
        job = self._next_job(earlier)
        # Its attempt must be the last of the record.
        self._suspend(True)
        pod = self._next_pod(job, ())
        self._cluster.wait("the end of all jobs", lambda: not self._active_jobs())
        self._await_end(job)
        self._note(pod, outcome)
        self._check_job(job, num_failed=0)
        self.expect(f"pods of {outcome}", len(self._cluster.items("pods", job_name=job)), 1)
        last = self._attempts()[-1]
        self.expect("attempt", (last["outcome"], last["exit_code"]), (outcome, int(code)))
        self.found.setdefault("reasons", {})[outcome] = last["reasons"]
        return job

    def _check_job(self, job: str, num_failed: int) -> None:
        ends = self._conditions(job) & {"Complete", "Failed"}
        self.expect(f"end of {job}", ends, {"Complete"})
        num_found = self._job(job)["status"].get("failed", 0)
        self.expect(f"failed pods of {job}", num_found, num_failed)

    def _attempts(self) -> list[dict[str, Any]]:
        text = self._cluster.call(self._pod, "look", f"cat {_ROOT}/retrain.ndjson")
        return [json.loads(line) for line in text.splitlines()]

    def _served(self) -> dict[str, int]:
        """Return model -> version in service, by the labels on the volume."""
        script = (
            "from beam_jobs.contracts import published; import json, pathlib; "
            f"folders = pathlib.Path('{_ROOT}/serving').iterdir(); "
            "served = {one.name: published.in_service(one) for one in folders if one.is_dir()}; "
            "print(json.dumps({name: int(one.name) for name, one in served.items() if one}))"
        )
        return json.loads(self._cluster.call(self._pod, "served", f'python -c "{script}"'))

    def _next_job(self, earlier: Sequence[str]) -> str:
        return self._cluster.wait(
            "the next job",
            lambda: [
                name
                for name in (job["metadata"]["name"] for job in self._cluster.items("jobs"))
                if name not in earlier
            ],
        )[0]

    def _next_pod(self, job: str, earlier: Sequence[str]) -> str:
        def started() -> list[str]:
            names = []
            for pod in self._cluster.items("pods", job_name=job):
                if pod["metadata"]["name"] not in earlier:
                    check_started(pod)
                    is_waiting = pod["status"].get("phase", "Pending") == "Pending"
                    names += [] if is_waiting else [pod["metadata"]["name"]]
            return names

        (name,) = self._cluster.wait(f"a pod of {job}", started)
        say(f"{job}: pod {name}")
        return name

    def _await_stage(self, pod: str, stage: str) -> None:
        """Wait until a pod has finished a stage.

        Raises:
            DrillError: it ended before.
        """

        def look() -> bool:
            # The phase first: then nothing can be missing from the log of one that ended.
            phase = self._cluster.phase(pod)
            text = self._cluster.logs(pod)
            if stage in dict(_STAGE_DONE.findall(text)):
                return True
            if phase != "Running":
                last = (text.strip() or "it printed nothing").splitlines()[-1]
                raise DrillError(f"{pod} is {phase} before {stage}: {last}")
            return False

        self._cluster.wait(f"{stage} in {pod}", look)
        say(f"  {stage} done")

    def _await_end(self, job: str) -> None:
        self._cluster.wait(
            f"the end of {job}", lambda: self._conditions(job) & {"Complete", "Failed"}
        )

    def _conditions(self, job: str) -> set[str]:
        conditions = self._job(job)["status"].get("conditions", [])
        return {one["type"] for one in conditions if one["status"] == "True"}

    def _job(self, name: str) -> dict[str, Any]:
        (job,) = [job for job in self._cluster.items("jobs") if job["metadata"]["name"] == name]
        return job

    def _active_jobs(self) -> list[str]:
        jobs = self._cluster.items("jobs")
        return [job["metadata"]["name"] for job in jobs if job["status"].get("active")]

    def _suspend(self, is_suspended: bool) -> None:
        self._cron_job["spec"]["suspend"] = is_suspended
        self._cluster.apply(self._cron_job)

    def _note(self, pod: str, end: str) -> None:
        """Keep the figures of a pod, before it goes or after it ended."""
        stages = dict(_STAGE_DONE.findall(self._cluster.logs(pod)))
        figures = {
            "pod": pod,
            "end": end,
            "stages": len(stages),
            "stage_seconds": round(sum(map(float, stages.values())), 1),
            "trainings": {one: float(stages[one]) for one in _TRAININGS if one in stages},
        }
        if peak := self._cluster.peak_gb(pod):
            figures["peak_gb"] = peak
        self.found["pods"].append(figures)
        say(f"  {json.dumps(figures)}")


def main(arguments: Sequence[str]) -> int:
    """Run the drill; return 1 if something was wrong, 2 if something is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", required=True, help="the project's image on the node")
    parser.add_argument("--pull-policy", default="IfNotPresent", help="[%(default)s]")
    parser.add_argument("--host-path", default="", help="folder on the node, for its volume")
    parser.add_argument("--host-network", action="store_true", help="there is no pod network")
    parser.add_argument("--timeout", type=float, default=1800.0, help="s for one wait")
    parser.add_argument("--keep", action="store_true", help="leave all in the cluster")
    given = parser.parse_args(arguments)
    node = Node(
        image=given.image,
        pull_policy=given.pull_policy,
        host_path=given.host_path,
        host_network=given.host_network,
    )
    try:
        with Cluster(_NAMESPACE, given.timeout, given.keep) as cluster:
            drill = Drill(cluster, node)
            try:
                drill.run()
            finally:
                print(json.dumps({**drill.found, "faults": drill.faults}, indent=2), flush=True)
    except DrillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if drill.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
