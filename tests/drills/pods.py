"""Run each task of the compiled pipeline as a pod of its own, and disturb some of them.

    export KUBECONFIG=<file of a cluster whose only node is this machine>
    python -m tests.drills.pods --image terrapair:latest

The drill compiles the smallest config for Kubeflow and runs its tasks in the order of
their edges, each with the image, command, resources, secrets and volumes that the YAML
declares, an empty working folder and a read-only root. The first tasks build the shards.
Metadata are in a MariaDB, files on moto's S3 server, both on loopback. Without KUBECONFIG
the tasks are podman's containers; without `--image` they are processes.

The first run must publish three models, although a training is killed by its memory
limit and tried again, and the database is gone for ten seconds while another training
goes on. The second run must take every node from the cache. The third run asks for a new
span, and there are no new scenes: its data jobs must end as `nothing_new`, all other
tasks must skip, and no model may be published.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beam_jobs.contracts import published
from beam_jobs.contracts.locations import locate
from pipeline.runners.node_record import BEGIN, REPORT, RunFolder
from pipeline.runners.root import NODE_LOCKS_DIR
from tests.data.runs import compiled_tasks
from tests.data.runs.compiled_tasks import Task
from tests.data.servers import maria_db, s3_server
from tests.drills.cronjob import Cluster, DrillError
from tests.drills.task_pods import (
    KILLED,
    MEMORY_VOLUME,
    Containers,
    Ended,
    Place,
    Pods,
    Processes,
    Secrets,
    pod_of,
)

_REPOSITORY = Path(__file__).parents[2]
_SMOKE = _REPOSITORY / "pipeline" / "configs" / "smoke.yaml"
_MODELS = ("encoder", "flood", "landcover")
_NUM_RETRIES = 2
_GONE_SECONDS = 10.0
_POLL_SECONDS = 1.0
_KILLED_NODE, _LOST_NODE = "Trainer-flood", "Trainer-landcover"
_BUILD = "build-"
"""Data jobs begin with this."""
_NEW_SPAN = "data.new_span=true"
_MEMORY = "3Gi"
"""Limit of each pod."""
Disturbance = Callable[[str], None]
"""Gets the name of a pod whose program has begun its node."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A pod, container or process that ended.

    Attributes:
        run: id of the run.
        node: that it ran.
        end: outcome, or why it was killed.
        seconds: from its creation to its end, as seen from outside.
        peak_mib: largest memory of the program; 0 = unknown.
    """

    run: str
    node: str
    end: str
    seconds: float
    peak_mib: float


def overrides(root: str, database_port: int, variables: Mapping[str, str], image: str) -> list[str]:
    """Return the settings with which the drill compiles the smallest config.

    Args:
        root: URI of the run.
        database_port: of the MariaDB on loopback.
        variables: of the store, without its keys.
        image: of the pods.
    """
    pod = {
        "cpu": "250m",
        "memory": "1Gi",
        "memory_limit": _MEMORY,
        "num_retries": _NUM_RETRIES,
        "env": dict(variables),
        "secrets": [
            {"name": "database", "env": {"password": "TERRAPAIR_METADATA_PASSWORD"}},
            {
                "name": "store",
                "env": {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"},
                "mount_path": "/etc/store",
            },
        ],
    }
    memory = {"mount_path": MEMORY_VOLUME, "size": _MEMORY, "in_memory": True}
    metadata = {"host": "127.0.0.1", "port": database_port, "user": maria_db.USER}
    values = {
        "root": root,
        "container_image": image,
        "metadata": metadata,
        "kubeflow": {"pods": {"default": pod, "Trainer": {"volumes": [memory]}}},
    }
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


@dataclass(frozen=True, kw_only=True)
class _Try:
    """A pod of a task that goes on."""

    task: Task
    attempt: int
    name: str
    began: float


class Drill:
    """The runs, their rows, and what was wrong."""

    def __init__(
        self,
        place: Place,
        package: Path,
        *,
        root: str,
        database: maria_db.Server,
        num_jobs: int,
    ) -> None:
        """Name what the drill works with.

        Args:
            place: where tasks run.
            package: the compiled YAML.
            root: URI of the run.
            database: with its metadata.
            num_jobs: tasks at a time.
        """
        self._place, self._package, self._root = place, package, root
        self._database, self._num_jobs = database, num_jobs
        self.rows: list[Row] = []
        self.faults: list[str] = []

    def run(self) -> None:
        """Do all runs."""
        disturbances = {_KILLED_NODE: self._place.fill_memory, _LOST_NODE: self._lose_database}
        self._check("first", self._do("first", disturbances), report="published", others="done")
        self._check("second", self._do("second"), report="published", others="cached")
        outcomes = self._do("third", overrides=[_NEW_SPAN])
        built = {node: outcomes.pop(node) for node in list(outcomes) if node.startswith(_BUILD)}
        wanted = dict.fromkeys(built, "nothing_new")
        self._expect("data jobs of the third run", built, wanted)
        self._check("third", outcomes, report="nothing_new", others="skipped")
        killed = [row.node for row in self.rows if "killed" in row.end]
        self._expect("pods that were killed", killed, [_KILLED_NODE])

    def _check(self, run: str, outcomes: dict[str, str], *, report: str, others: str) -> None:
        """Check the outcomes of a run, which are removed, and what is in service after it."""
        self._expect(f"outcome of the {run} run", outcomes.pop(REPORT), report)
        self._expect(f"begin of the {run} run", outcomes.pop(BEGIN), "done")
        wrong = {node: one for node, one in outcomes.items() if one != others}
        self._expect(f"nodes of the {run} run that are not {others}", wrong, {})
        self._expect(f"after the {run} run", self._versions(), dict.fromkeys(_MODELS, 1))

    def _do(
        self,
        run: str,
        disturbances: Mapping[str, Disturbance] | None = None,
        **parameters: Any,
    ) -> dict[str, str]:
        """Run all tasks, some at a time; return node -> outcome.

        Args:
            run: its id.
            disturbances: by node.
            parameters: of the pipeline.

        Raises:
            DrillError: a task failed, was killed too often, or ended before it could be
                disturbed.
        """
        waiting = list(compiled_tasks.tasks(self._package, run, self._place.outcomes, **parameters))
        running: list[_Try] = []
        outcomes: dict[str, str] = {}
        undisturbed = dict(disturbances or {})
        while waiting or running:
            for task in [one for one in waiting if one.upstream <= outcomes.keys()]:
                if len(running) < self._num_jobs:
                    waiting.remove(task)
                    running.append(self._start(run, task, 0))
            time.sleep(_POLL_SECONDS)
            for one in list(running):
                node = one.task.node
                ended = self._place.ended(one.name)
                if ended is None:
                    if node in undisturbed and self._has_begun(run, node):
                        undisturbed.pop(node)(one.name)
                    continue
                running.remove(one)
                self._note(run, one, ended)
                # Kubeflow tries a pod again that was killed, not a program that failed.
                if ended.exit_code == KILLED and one.attempt < one.task.num_retries:
                    running.append(self._start(run, one.task, one.attempt + 1))
                elif ended.exit_code or node in undisturbed:
                    raise DrillError(
                        f"{one.name} ended with {ended.exit_code} {ended.reason}: "
                        f"{ended.log[-2000:]}"
                    )
                else:
                    outcomes[node] = ended.outcome
        return outcomes

    def _start(self, run: str, task: Task, attempt: int) -> _Try:
        name = f"{run}-{task.node.lower()}-{attempt}"
        self._place.start(name, pod_of(task))
        return _Try(task=task, attempt=attempt, name=name, began=time.monotonic())

    def _has_begun(self, run: str, node: str) -> bool:
        """Return whether the program of a node holds its lock, and so has begun its work."""
        return locate(f"{self._root}/{NODE_LOCKS_DIR}/{run}/{node}").exists()

    def _note(self, run: str, one: _Try, ended: Ended) -> None:
        end, peak = ended.outcome, 0.0
        if ended.exit_code:
            end = f"{'killed' if ended.exit_code == KILLED else 'failed'}, {ended.reason}"
        else:
            record = RunFolder(self._root, run).read(one.task.node)
            peak = record.peak_mib if record is not None else 0.0
        seconds = round(time.monotonic() - one.began, 1)
        row = Row(run=run, node=one.task.node, end=end, seconds=seconds, peak_mib=round(peak))
        self.rows.append(row)
        print(f"{time.strftime('%H:%M:%S')} {json.dumps(asdict(row))}", file=sys.stderr, flush=True)

    def _lose_database(self, _: str) -> None:
        self._database.kill()
        time.sleep(_GONE_SECONDS)
        self._database.start()

    def _versions(self) -> dict[str, int]:
        """Return model -> its newest version on the store."""
        found = {}
        for name in _MODELS:
            served = published.in_service(locate(f"{self._root}/serving/{name}"))
            found[name] = int(served.name) if served is not None else 0
        return found

    def _expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.faults.append(f"{what}: {found!r}, not {wanted!r}")


def show(rows: Sequence[Row]) -> None:
    """Print the table of all pods."""
    table = Table("run", "task", "end")
    table.add_column("seconds", justify="right")
    table.add_column("peak MiB", justify="right")
    for row in rows:
        peak = f"{row.peak_mib:.0f}" if row.peak_mib else "-"
        table.add_row(row.run, row.node, row.end, f"{row.seconds:.1f}", peak)
    Console(width=100).print(table)


@contextmanager
def _place(folder: Path, secrets: Secrets, image: str) -> Iterator[Place]:
    if not image:
        yield Processes(folder, secrets)
    elif "KUBECONFIG" in os.environ:
        with Cluster("terrapair-pods", timeout_seconds=600.0, keep=False) as cluster:
            yield Pods(cluster, secrets)
    else:
        yield Containers(folder, secrets)


def _compile(settings: Sequence[str], package: Path) -> None:
    """Write the compiled YAML, as a user does."""
    options = [part for one in settings for part in ("--set", one)]
    command = [sys.executable, "-W", "ignore", "-m", "pipeline", "compile", "--config", str(_SMOKE)]
    done = subprocess.run(
        [*command, *options, "--output", str(package)],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DrillError(f"compile: {done.stderr.strip()}")


def run(folder: Path, image: str, num_jobs: int) -> Drill:
    """Do the drill; return it with its rows and faults.

    Args:
        folder: for the servers' files and the compiled YAML; exists.
        image: of the pods; "" = processes.
        num_jobs: tasks at a time.

    Raises:
        DrillError: a program is missing, or a task failed.
    """
    if not shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin"):
        raise DrillError("the drill needs MariaDB: apt-get install mariadb-server-core")
    with maria_db.running(folder) as database, s3_server.running() as store:
        os.environ.update(store)
        keys = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
        secrets = {
            "database": {"password": maria_db.PASSWORD},
            "store": {key: store[name] for key, name in keys.items()},
        }
        plain = {name: value for name, value in store.items() if name not in keys.values()}
        root = s3_server.new_folder("pods")
        settings = overrides(root, database.port, plain, image or "localhost/terrapair:none")
        package = folder / "run.yaml"
        _compile(settings, package)
        with _place(folder, secrets, image) as place:
            drill = Drill(place, package, root=root, database=database, num_jobs=num_jobs)
            try:
                drill.run()
            finally:
                show(drill.rows)
    return drill


def main(arguments: Sequence[str]) -> int:
    """Run the drill; return 1 if something was wrong, 2 if it could not go on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", default="", help="the project's image; none: processes")
    parser.add_argument("--jobs", type=int, default=2, help="tasks at a time [%(default)s]")
    given = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="terrapair-pods-") as folder:
            drill = run(Path(folder), given.image, given.jobs)
    except DrillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for fault in drill.faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if drill.faults else 0


if __name__ == "__main__":
    from beam_jobs.contracts.object_store import run_to_exit

    run_to_exit(lambda: main(sys.argv[1:]))
