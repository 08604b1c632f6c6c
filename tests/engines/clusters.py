"""Clusters of Flink and Spark on loopback, by the scripts of deploy/.

What they are made of comes from PyPI and Maven Central the first time: Flink's and
Spark's jars, and Beam's job servers. It stays in a folder of tools.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
EngineName = Literal["flink", "spark"]
_PACKAGES: dict[EngineName, str] = {
    "flink": "apache-flink-libraries==1.19.3",
    "spark": "pyspark==3.5.9",
}
_HOMES: dict[EngineName, str] = {"flink": "pyflink", "spark": "pyspark"}
_MEMBERS: dict[EngineName, str] = {"flink": "taskmanager", "spark": "worker"}
_END_SECONDS = 15.0


class MissingToolError(Exception):
    """A program that the tests cannot bring themselves; one line."""


def check_programs() -> None:
    """Check that Java, its `jar` and Maven are there.

    Raises:
        MissingToolError: one is missing.
    """
    for program, package in (
        ("java", "openjdk-17-jdk-headless"),
        ("jar", "openjdk-17-jdk-headless"),
        ("mvn", "maven"),
    ):
        if shutil.which(program) is None:
            raise MissingToolError(
                f"the tests on Flink and Spark need {program!r}, which is not on PATH: "
                f"apt-get install {package}"
            )


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What one engine is made of.

    Attributes:
        engine: name of the engine.
        home: folder of Flink or Spark.
        job_server: jar of Beam's job server.
        launcher: jar that starts it; Spark's needs Spark beside it.
    """

    engine: EngineName
    home: Path
    job_server: Path
    launcher: Path


def find_tools(engine: EngineName, folder: Path) -> Tools:
    """Return the tools of an engine; those that are not there yet are fetched."""
    home = folder / engine / _HOMES[engine]
    if not home.is_dir():
        _run(
            [sys.executable, "-m", "uv", "--native-tls", "pip", "install", "--quiet"],
            ["--no-deps", "--target", str(folder / engine), _PACKAGES[engine]],
        )
    out = folder / "jars" / engine
    job_server = out / f"{engine}-job-server.jar"
    if not job_server.exists():
        pom = DEPLOY / "job_server" / "pom.xml"
        # Maven makes a jar of that name without any library first.
        building = out.with_name(f".{engine}")
        _run(["mvn", "-B", "-q", "-f", str(pom), "-P", engine, f"-Dout={building}", "package"], [])
        out.mkdir(parents=True, exist_ok=True)
        (building / job_server.name).replace(job_server)
        shutil.rmtree(building)
    launcher = job_server
    if engine == "spark":
        launcher = out / "spark-launcher.jar"
        script = str(DEPLOY / "spark" / "cluster.sh")
        _run(
            [script, "launcher", str(job_server), str(launcher)],
            [],
            {**os.environ, "SPARK_HOME": str(home)},
        )
    return Tools(engine=engine, home=home, job_server=job_server, launcher=launcher)


def _run(command: list[str], more: list[str], environment: Mapping[str, str] | None = None) -> None:
    ended = subprocess.run(
        [*command, *more], capture_output=True, text=True, env=environment, check=False
    )
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines() or ["no message"]
        raise MissingToolError(f"{command[0]} failed: {said[-1]}")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        tools: what it is made of.
        state: folder of its logs and process ids.
        port: first of its two ports.
    """

    tools: Tools
    state: Path
    port: int

    @property
    def options(self) -> list[str]:
        """Beam's options of a job on it: those of deploy/, and its own addresses."""
        engine = self.tools.engine
        shared = [f"@{DEPLOY / engine / 'options.txt'}"]
        if engine == "flink":
            return [
                *shared,
                f"--flink_master=localhost:{self.port}",
                f"--flink_job_server_jar={self.tools.launcher}",
            ]
        return [
            *shared,
            f"--spark_master_url=spark://127.0.0.1:{self.port}",
            f"--spark_job_server_jar={self.tools.launcher}",
            f"--files_to_stage={self.tools.job_server}",
        ]

    @property
    def groups(self) -> dict[int, str]:
        """Process group -> name of the member of the cluster that leads it."""
        return {int(path.read_text()): path.stem for path in self.state.glob("*.pid")}

    def kill_member_of(self, pid: int) -> str | None:
        """Kill the TaskManager or Spark worker that started a process, return its name.

        None: the process has ended, or its member was killed before.

        Of Flink, only the TaskManager is killed: its Python workers go on for a while
        and write beside the second attempt. Of Spark, all that the worker started dies
        with it.
        """
        try:
            group = os.getpgid(pid)
            os.kill(group, 0)
        except ProcessLookupError:
            return None
        name = self.groups[group]
        self._script("kill", name.removeprefix(_MEMBERS[self.tools.engine]))
        return name

    def _script(self, verb: str, *more: str) -> None:
        _script(self.tools, self.port, verb, str(self.state), *more)


def _script(tools: Tools, port: int, *words: str) -> None:
    name = tools.engine.upper()
    environment = {
        **os.environ,
        f"{name}_HOME": str(tools.home),
        f"{name}_PORT": str(port),
        "FLINK_JARS": str(tools.job_server),
        "TERRAPAIR_PYTHON": sys.executable,
    }
    _run([str(DEPLOY / tools.engine / "cluster.sh"), *words], [], environment)


@contextmanager
def running(tools: Tools, state: Path, num_members: int = 2) -> Iterator[Cluster]:
    """Start a cluster, and end it with the body.

    Raises:
        RuntimeError: a process of it goes on.
    """
    cluster = Cluster(tools=tools, state=state, port=_free_ports())
    try:
        cluster._script("up", str(num_members))
        yield cluster
    finally:
        groups = tuple(cluster.groups)
        cluster._script("down")
        check_ended(groups)


def check_ended(groups: Collection[int]) -> None:
    """Wait until no process of some process groups is left.

    Raises:
        RuntimeError: one goes on after 15 s.
    """
    deadline = time.monotonic() + _END_SECONDS
    while left := _living(groups):
        if time.monotonic() > deadline:
            raise RuntimeError(f"still there {_END_SECONDS:g} s after the end: {', '.join(left)}")
        time.sleep(0.2)


def _living(groups: Collection[int]) -> list[str]:
    """Return name and id of the processes of some groups, without those that only wait."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.name()} {process.pid}")
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def _free_ports() -> int:
    """Return a port that is free, as the next one is."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                two.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
