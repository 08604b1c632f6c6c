"""Train on two pods of a real node, kill each of them once, and publish the model.

    export KUBECONFIG=<file of a cluster>
    python -m tests.drills.two_workers --image terrapair:latest

It needs a node on this machine whose pods share its network, and the project's image on
it. A loopback S3 server and a MariaDB of this machine hold the files and ML Metadata.

One pod runs the nodes before the Trainer. The first of them simulates scenes and builds
a data set. `terrapair training-job` writes the Indexed Job, which trains a land cover
model from new weights. The pod of worker 1 is deleted after a checkpoint, that of worker
0 after a later one: each time, both workers must end, start again and go on from a
checkpoint.
Then one pod runs the nodes after the Trainer, which must publish what worker 0 wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from beam_jobs.contracts import locations, object_store, published
from beam_jobs.contracts.settings import to_dict
from pipeline.config import RunConfig, load_text
from pipeline.kubeflow.training_job import PORT
from pipeline.runners.node_record import BEGIN, REPORT, RunFolder
from tests.data.servers import maria_db, s3_server
from tests.drills.cluster import Cluster, DrillError, say

_REPOSITORY = Path(__file__).parents[2]
_SMOKE = _REPOSITORY / "pipeline" / "configs" / "smoke.yaml"
_NAMESPACE = "terrapair-two-workers"
_SECRET = "drill"
_PASSWORD = "TERRAPAIR_METADATA_PASSWORD"
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_TASK = "landcover"
_TRAINER = f"Trainer-{_TASK}"
_RUN_ID = "drill"
_NUM_WORKERS = 2
_NUM_STEPS = 120
_CHECKPOINT_EVERY = 10
# After the first, worker 1 is deleted; after the second, worker 0.
_KILLS = ((20, 1), (60, 0))
_BEFORE = (
    *("build-labels", "ImportExampleGen", "DataManifest", "StatisticsGen", "SchemaGen"),
    *("DriftCheck", "ExampleValidator", "DriftGate"),
)
_AFTER = ("Canary", "Evaluator", "Scorer", "ChampionGate", "Pusher")
_OF_WORKERS = ("WORKER", "TF_CONFIG", "TERRAPAIR_WORKERS_DIR")
_RESUMED = re.compile(r"resumed after step (\d+) of")


def run_config(image: str, root: str, database: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """Return the smallest config with one task, which learns from new weights, as YAML.

    Args:
        image: of the pods.
        root: of the run, on the store.
        database: settings of ML Metadata.
        env: of the pods; without secrets.
    """
    config = yaml.safe_load(_SMOKE.read_text())
    (task,) = [task for task in config["tasks"] if task["use"] == _TASK]
    del config["pretrain"], config["probe"]
    task["segment"] |= {
        "regime": "scratch",
        "encoder": {"backbone": "small", "embedding_dim": 16},
        "num_steps": _NUM_STEPS,
        "checkpoint_every": _CHECKPOINT_EVERY,
    }
    keys = {"password": _PASSWORD, **{_key(name): name for name in _KEYS}}
    pod = {
        "cpu": "500m",
        "memory": "1Gi",
        "memory_limit": "6Gi",
        "pull_policy": "Never",
        "num_retries": 3,
        "env": dict(env),
        "secrets": [{"name": _SECRET, "env": keys}],
    }
    config |= {
        "root": root,
        "tasks": [task],
        "container_image": image,
        "metadata": dict(database),
        "kubeflow": {"pods": {"default": pod}},
    }
    return yaml.safe_dump(config, sort_keys=False)


def on_one_network(job: Mapping[str, Any], ports: Sequence[int]) -> dict[str, Any]:
    """Return an Indexed Job whose pods share the network of their node.

    They have no names there, so each gets a port of its own.

    Args:
        job: as `terrapair training-job` writes it.
        ports: one for each worker.
    """
    changed = deepcopy(dict(job))
    pod = changed["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pod["hostNetwork"] = True
    del pod["subdomain"], container["ports"]
    (config,) = [one for one in container["env"] if one["name"] == "TF_CONFIG"]
    for index, port in enumerate(ports):
        name = f"{changed['metadata']['name']}-{index}.{changed['metadata']['name']}:{PORT}"
        if name not in config["value"]:
            raise DrillError(f"TF_CONFIG of the Job does not name {name}: {config['value']}")
        config["value"] = config["value"].replace(name, f"127.0.0.1:{port}")
    return changed


def plain_pod(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod of a worker for other commands."""
    pod: dict[str, Any] = deepcopy(job["spec"]["template"]["spec"])
    (container,) = pod["containers"]
    container["env"] = [one for one in container["env"] if one["name"] not in _OF_WORKERS]
    return pod


class Drill:
    """The steps of the drill, its figures, and what was wrong."""

    def __init__(self, cluster: Cluster, config_text: str, root: str) -> None:
        """Write the Job by the command line, as a user would."""
        self._cluster, self._text, self._root = cluster, config_text, root
        self._config: RunConfig = load_text(config_text, "drill", (), os.environ)
        self._job = on_one_network(_written_job(config_text), _free_ports(_NUM_WORKERS))
        self._name = self._job["metadata"]["name"]
        self._seen: set[str] = set()
        self.found: dict[str, Any] = {"seconds": {}, "pods": []}
        self.faults: list[str] = []

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a fault if two values differ."""
        if found != wanted:
            self.faults.append(f"{what}: {found!r}, not {wanted!r}")

    def run(self) -> None:
        """Do all steps, and note the figures."""
        self._timed("data set and nodes before", self._before)
        self._timed("training", self._train)
        self._timed("nodes after", self._after)
        serving = locations.locate(self._config.serving_dir) / _TASK
        version = published.in_service(serving)
        self.found["published"] = str(version)
        self.expect("version in service", version and version.name, "1")

    def _before(self) -> None:
        script = f"""
cat > /tmp/run.yaml <<'END'
{self._text}
END
terrapair node --config /tmp/run.yaml --run-id {_RUN_ID} --node {BEGIN}
{self._nodes(_BEFORE)}"""
        self._cluster.call(plain_pod(self._job), "before", script)

    def _after(self) -> None:
        script = f"{self._nodes(_AFTER)}{self._node(REPORT)}"
        printed = self._cluster.call(plain_pod(self._job), "after", script)
        self.found["report"] = printed.strip().splitlines()[-1]

    def _train(self) -> None:
        self._cluster.apply(self._job)
        began = 0
        for step, worker in _KILLS:
            pods = self._workers()
            reached = self._reached(step, pods)
            self._note(pods, f"worker {worker} is deleted after step {reached}, from {began}")
            killed = time.monotonic()
            # It gets SIGKILL after a second: a killed pod tells the other worker nothing.
            self._cluster.delete_pod(pods[worker], "--grace-period=1")
            self._seen.update(pods.values())
            began = self._resumed(self._workers())
            self.expect(f"step after the loss of worker {worker}", began >= step, True)
            self.found["pods"][-1]["seconds_until_resumed"] = round(time.monotonic() - killed, 1)
        pods = self._workers()
        peaks: dict[int, float] = {}

        def ended() -> set[str]:
            for index, pod in pods.items():
                peaks[index] = self._cluster.peak_gb(pod) or peaks.get(index, 0.0)
            return self._ends()

        ends = self._cluster.wait("the end of the Job", ended)
        self.expect("end of the Job", ends & {"Complete", "Failed"}, {"Complete"})
        (job,) = self._cluster.items("jobs")
        self.found["failed_pods"] = job["status"].get("failed", 0)
        self.found["pods"].append({"end": "trained", "peak_gb": peaks})
        record = RunFolder(self._root, _RUN_ID).read(_TRAINER)
        self.expect("outcome of the Trainer", record and record.outcome, "done")
        left = locations.glob(self._config.checkpoints_dir, "*/step-*")
        self.expect("checkpoints that are left", left, [])

    def _workers(self) -> dict[int, str]:
        """Return worker -> its pod, when a pod of each that was not seen before runs."""

        def look() -> dict[int, str]:
            ends = self._ends()
            if ends:
                raise DrillError(f"the Job has ended: {', '.join(sorted(ends))}: {self._last()}")
            found = {}
            for pod in self._cluster.items("pods", job_name=self._name):
                name = pod["metadata"]["name"]
                if name not in self._seen and self._cluster.phase(name) == "Running":
                    found[_index_of(pod)] = name
            return found if len(found) == _NUM_WORKERS else {}

        return self._cluster.wait("both workers", look)

    def _reached(self, step: int, pods: Mapping[int, str]) -> int:
        """Return the step of a checkpoint at or after a step, as soon as there is one."""

        def look() -> int:
            newest = self._newest_checkpoint(pods)
            return newest if newest >= step else 0

        return self._cluster.wait(f"a checkpoint at step {step}", look)

    def _newest_checkpoint(self, pods: Mapping[int, str]) -> int:
        """Return the step of the newest checkpoint, 0 without one.

        Raises:
            DrillError: a worker ended.
        """
        for pod in pods.values():
            if self._cluster.phase(pod) != "Running":
                raise DrillError(f"{pod} has ended: {self._cluster.logs(pod).strip()[-500:]}")
        steps = locations.glob(self._config.checkpoints_dir, "*/step-*/progress.json")
        return max((int(one.parent.name.removeprefix("step-")) for one in steps), default=0)

    def _resumed(self, pods: dict[int, str]) -> int:
        """Return the step after which the first worker goes on; a try may end before."""

        def look() -> re.Match[str] | None:
            if self._cluster.phase(pods[0]) != "Running":
                say(f"  a try has ended: {self._cluster.logs(pods[0]).strip()[-300:]}")
                self._seen.update(pods.values())
                pods.update(self._workers())
            return _RESUMED.search(self._cluster.logs(pods[0]))

        step = int(self._cluster.wait("the training to go on", look)[1])
        say(f"  resumed after step {step}")
        return step

    def _ends(self) -> set[str]:
        (job,) = self._cluster.items("jobs")
        conditions = job["status"].get("conditions", [])
        ends = {"Complete", "Failed"}
        return {one["type"] for one in conditions if one["status"] == "True"} & ends

    def _last(self) -> str:
        pods = self._cluster.items("pods", job_name=self._name)
        return " | ".join(
            self._cluster.logs(one["metadata"]["name"]).strip()[-300:] for one in pods
        )

    def _nodes(self, kinds: Sequence[str]) -> str:
        return "".join(self._node(f"{kind}-{_TASK}") for kind in kinds)

    def _node(self, node: str) -> str:
        return f"terrapair node --run {self._root} --run-id {_RUN_ID} --node {node}\n"

    def _note(self, pods: Mapping[int, str], end: str) -> None:
        peaks = {index: self._cluster.peak_gb(pod) for index, pod in pods.items()}
        self.found["pods"].append({"end": end, "peak_gb": peaks})
        say(f"  {end}; peak {peaks} GB")

    def _timed(self, what: str, work: Callable[[], None]) -> None:
        say(what)
        began = time.monotonic()
        work()
        self.found["seconds"][what] = round(time.monotonic() - began, 1)
        say(f"  {self.found['seconds'][what]} s")


def _written_job(config_text: str) -> dict[str, Any]:
    """Return the Indexed Job that `terrapair training-job` writes."""
    with tempfile.TemporaryDirectory() as folder:
        config, output = Path(folder, "run.yaml"), Path(folder, "job.yaml")
        config.write_text(config_text)
        command = [sys.executable, "-m", "pipeline", "training-job", "--config", str(config)]
        command += ["--run-id", _RUN_ID, "--node", _TRAINER, "--output", str(output)]
        subprocess.run(
            [*command, "--num-workers", str(_NUM_WORKERS)], check=True, stdout=subprocess.DEVNULL
        )
        _, job = yaml.safe_load_all(output.read_text())
    return dict(job)


def _key(variable: str) -> str:
    """Return the key of a Secret for an environment variable."""
    return variable.lower().replace("_", "-")


def _index_of(pod: Mapping[str, Any]) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)
        ]
        return [one.getsockname()[1] for one in sockets]


def main(arguments: Sequence[str]) -> int:
    """Run the drill; return 1 if something was wrong, 2 if something is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", required=True, help="the project's image on the node")
    parser.add_argument("--timeout", type=float, default=1800.0, help="s for one wait")
    parser.add_argument("--keep", action="store_true", help="leave all in the cluster")
    given = parser.parse_args(arguments)
    try:
        with (
            Cluster(_NAMESPACE, given.timeout, given.keep) as cluster,
            tempfile.TemporaryDirectory() as folder,
            maria_db.running(Path(folder)) as database,
            s3_server.running() as variables,
        ):
            os.environ.update(variables)
            secrets = {key: variables[key] for key in _KEYS}
            root = s3_server.new_folder("two-workers")
            env = {key: value for key, value in variables.items() if key not in secrets}
            text = run_config(given.image, root, to_dict(database.config()), env)
            data = {"password": maria_db.PASSWORD}
            data |= {_key(name): value for name, value in secrets.items()}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _SECRET}}
            cluster.apply({**secret, "stringData": data})
            drill = Drill(cluster, text, root)
            try:
                drill.run()
            finally:
                print(json.dumps({**drill.found, "faults": drill.faults}, indent=2), flush=True)
    except (DrillError, pytest.skip.Exception) as error:
        # `maria_db` skips where MariaDB is not installed.
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if drill.faults else 0


if __name__ == "__main__":
    object_store.run_to_exit(lambda: main(sys.argv[1:]))
