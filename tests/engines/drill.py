"""The drill: jobs on a cluster, whose members or whose driver are killed.

Input: a folder, and the tools of an engine. Output: JSON lines, or an error. Each job
must leave the bytes of the local runner.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_jobs.emulator import server
from beam_jobs.engines import flink
from tests.engines import clusters, jobs
from tests.engines.clusters import Cluster, EngineName
from tests.engines.jobs import Ended, Inputs


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Inputs, and the folder of all outputs.

    Attributes:
        inputs: of the jobs.
        folder: holds `local/VERB`, what the local runner left.
    """

    inputs: Inputs
    folder: Path

    def run(
        self,
        verb: str,
        name: str,
        cluster: Cluster | None = None,
        meanwhile: Callable[[Path, int], bool] | None = None,
    ) -> Ended:
        """Run a job; its output is `folder/name/verb`."""
        output = self.folder / name / verb
        output.parent.mkdir(parents=True, exist_ok=True)
        return jobs.run(
            self.inputs.command(verb, output, cluster.options if cluster else ()),
            output.with_suffix(".log"),
            environment=self.inputs.environment,
            groups=tuple(cluster.groups) if cluster else (),
            meanwhile=None if meanwhile is None else lambda pid: meanwhile(output, pid),
        )

    def compare(self, verb: str, name: str) -> int:
        """Return the number of files, whose bytes are those of the local runner.

        The local runner works the first time that its files are needed.
        """
        done = self.folder / "local" / f"{verb}.done"
        if not done.exists():
            ended = self.run(verb, "local").check()
            done.write_text("")
            _say(
                engine="local",
                verb=verb,
                seconds=round(ended.seconds, 1),
                cpu_seconds=round(ended.cpu_seconds, 1),
                peak_mb=ended.peaks.by_program,
            )
        return jobs.compare(verb, self.folder / name / verb, self.folder / "local" / verb)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _run_verbs(bench: Bench, cluster: Cluster) -> None:
    engine = cluster.tools.engine
    for verb in jobs.VERBS:
        ended = bench.run(verb, engine, cluster).check()
        _say(
            engine=engine,
            verb=verb,
            seconds=round(ended.seconds, 1),
            cpu_seconds=round(ended.cpu_seconds, 1),
            equal_files=bench.compare(verb, engine),
            peak_mb=ended.peaks.by_program,
            all_mb=ended.peaks.total,
        )


def _kill_members(bench: Bench, cluster: Cluster) -> None:
    """Kill a member while it cuts patches, and another one while it writes a shard.

    Compare what the job leaves.
    """
    engine, killed = cluster.tools.engine, {}

    def kill(output: Path, _: int) -> bool:
        phase, pattern = ("shard", "part-*") if killed else ("cut", "*.data")
        for pid in jobs.writers(output, pattern, num_finished=2):
            name = cluster.kill_member_of(pid)
            # The worker of the first member may still write a shard.
            if name is not None and name not in killed.values():
                killed[phase] = name
                break
        return len(killed) == 2

    name = f"{engine}-kills"
    ended = bench.run("build-pairs", name, cluster, kill).check()
    _say(
        engine=engine,
        killed=killed,
        seconds=round(ended.seconds, 1),
        cpu_seconds=round(ended.cpu_seconds, 1),
        equal_files=bench.compare("build-pairs", name),
    )


def _kill_driver(bench: Bench, cluster: Cluster) -> None:
    """Kill the driver, run the command again, and compare."""
    engine = cluster.tools.engine
    name = f"{engine}-driver"

    def is_running(output: Path) -> bool:
        # Early on Flink: the next run needs some seconds until it looks for the job,
        # which must not have ended by then.
        if engine == "flink":
            return any(job["state"] == "RUNNING" for job in _flink_jobs(cluster))
        return bool(jobs.writers(output, "*.data"))

    def kill(output: Path, pid: int) -> bool:
        if not is_running(output):
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    first = bench.run("build-pairs", name, cluster, kill)
    if first.exit_code != -signal.SIGKILL:
        raise RuntimeError(f"the driver ended with {first.exit_code}, not by its kill")
    # Its job server goes on, as the whole job does on Flink.
    try:
        again = bench.run("build-pairs", name, cluster).check()
    finally:
        jobs.kill_group(first.group)
    states = []
    if engine == "flink":
        states = sorted(job["state"] for job in _flink_jobs(cluster))
        if states != ["CANCELED", "FINISHED"] or "cancelled the job" not in again.said:
            raise RuntimeError(f"the job of the killed driver was not cancelled: {states}")
    _say(
        engine=engine,
        killed="driver",
        seconds=round(again.seconds, 1),
        cpu_seconds=round(again.cpu_seconds, 1),
        equal_files=bench.compare("build-pairs", name),
        jobs=states,
    )


def _flink_jobs(cluster: Cluster) -> list[dict[str, Any]]:
    overview = flink._ask(f"http://localhost:{cluster.port}", "jobs/overview")
    return list(overview["jobs"])


STEPS: dict[str, Callable[[Bench, Cluster], None]] = {
    "verbs": _run_verbs,
    "kills": _kill_members,
    "driver": _kill_driver,
}
"""Name -> what is done on a cluster of its own."""
_NUM_MEMBERS = {"kills": 3}
"""Members of a cluster; 2 where nothing is said."""


def run(engines: Sequence[EngineName], steps: Sequence[str], folder: Path, tools: Path) -> None:
    """Take the steps on each engine.

    Args:
        engines: names of the engines.
        steps: keys of STEPS.
        folder: folder of inputs and outputs. What an earlier drill left is used again.
        tools: folder of what the engines are made of.

    Raises:
        MissingToolError: a program, or what must be downloaded, is missing.
        DifferenceError: a job left other files than the local runner.
    """
    found = {engine: clusters.find_tools(engine, tools) for engine in engines}
    catalog, model, places = jobs.make_inputs(folder)
    with server.running(catalog.parent, folder / "emulator") as emulator:
        # The workers of a cluster inherit the token of the emulator.
        os.environ.update(emulator.environment)
        # Most of a short job's CPU would go into compiling what runs once.
        os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
        inputs = Inputs(
            catalog=catalog, model=model, places=places, environment=emulator.environment
        )
        bench = Bench(inputs=inputs, folder=folder)
        for engine in engines:
            for step in steps:
                state = folder / f"{engine}-state" / step
                number = _NUM_MEMBERS.get(step, 2)
                with clusters.running(found[engine], state, number) as cluster:
                    STEPS[step](bench, cluster)
