"""The drill: jobs on a cluster, whose members or whose driver are killed.

Input: a folder, and the tools of an engine. Output: JSON lines, or an error. Each job
must leave the bytes of the local runner. A step that fails does not keep the others
from their turn.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from beam_jobs.emulator import server
from beam_jobs.engines import flink
from beam_jobs.errors import DataError
from tests.engines import clusters, jobs
from tests.engines.clusters import Cluster, EngineName
from tests.engines.jobs import Ended, Inputs


class StepError(Exception):
    """Steps that failed; one line."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Inputs, and where the outputs of a step are.

    Attributes:
        inputs: of the jobs.
        engine: name of the engine.
        step: key of STEPS.
        folder: of the whole drill; holds `local/VERB`, what the local runner left.
    """

    inputs: Inputs
    engine: EngineName
    step: str
    folder: Path

    @property
    def scratch(self) -> Path:
        """Folder of what the step leaves."""
        return self.folder / self.engine / self.step

    def run(
        self,
        verb: str,
        cluster: Cluster,
        meanwhile: Callable[[Path, int], bool] | None = None,
    ) -> Ended:
        """Run a job on the cluster; its output is `scratch/VERB`."""
        output = self.scratch / verb
        return jobs.run(
            self.inputs.command(verb, output, cluster.options),
            output.with_suffix(".log"),
            environment=self.inputs.environment,
            groups=tuple(cluster.groups),
            meanwhile=None if meanwhile is None else lambda pid: meanwhile(output, pid),
        )

    def compare(self, verb: str) -> int:
        """Return the number of files, whose bytes are those of the local runner.

        The local runner works the first time that its files are needed.
        """
        local = self.folder / "local"
        done = local / f"{verb}.done"
        if not done.exists():
            # An earlier drill may have died in the middle.
            shutil.rmtree(local / verb, ignore_errors=True)
            local.mkdir(parents=True, exist_ok=True)
            ended = jobs.run(
                self.inputs.command(verb, local / verb),
                local / f"{verb}.log",
                environment=self.inputs.environment,
            ).check()
            _say(engine="local", step=verb, **_figures(ended))
            done.write_text("")
        return jobs.compare(verb, self.scratch / verb, local / verb)

    def report(self, verb: str, ended: Ended, **values: object) -> None:
        """Compare what a job left, and print its figures."""
        equal = self.compare(verb)
        figures = _figures(ended)
        if "killed" in values:
            # The CPU time of what was killed is lost.
            del figures["cpu_seconds"]
        _say(engine=self.engine, step=self.step, **figures, **values, equal_files=equal)


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def _figures(ended: Ended) -> dict[str, object]:
    return {
        "seconds": round(ended.seconds, 1),
        "cpu_seconds": round(ended.cpu_seconds, 1),
        "peak_mb": ended.peaks.by_program,
        "all_mb": ended.peaks.total,
    }


def _run_verb(verb: str, bench: Bench, cluster: Cluster) -> None:
    bench.report(verb, bench.run(verb, cluster).check())


def _kill_members(bench: Bench, cluster: Cluster) -> None:
    """Kill a member while it cuts patches, and another one while it writes a shard.

    Compare what the job leaves.
    """
    killed: dict[str, str] = {}

    def kill(output: Path, _: int) -> bool:
        phase, pattern = ("shard", "part-*") if killed else ("cut", "*.data")
        for pid in jobs.writers(output, pattern, num_finished=2):
            name = cluster.kill_member_of(pid)
            # The worker of the first member may still write a shard.
            if name is not None and name not in killed.values():
                killed[phase] = name
                break
        return len(killed) == 2

    bench.report("build-pairs", bench.run("build-pairs", cluster, kill).check(), killed=killed)


def _kill_driver(bench: Bench, cluster: Cluster) -> None:
    """Kill the driver, run the command again, and compare."""

    def is_running(output: Path) -> bool:
        # Early on Flink: the next run needs some seconds until it looks for the job,
        # which must not have ended by then.
        if bench.engine == "flink":
            return any(job["state"] == "RUNNING" for job in _flink_jobs(cluster))
        return bool(jobs.writers(output, "*.data"))

    def kill(output: Path, pid: int) -> bool:
        if not is_running(output):
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    first = bench.run("build-pairs", cluster, kill)
    if first.exit_code != -signal.SIGKILL:
        raise RuntimeError(f"the driver ended with {first.exit_code}, not by its kill")
    # Its job server goes on, as the whole job does on Flink.
    try:
        again = bench.run("build-pairs", cluster).check()
    finally:
        jobs.kill_group(first.group)
    states = []
    if bench.engine == "flink":
        states = sorted(job["state"] for job in _flink_jobs(cluster))
        if states != ["CANCELED", "FINISHED"] or "cancelled the job" not in again.said:
            raise RuntimeError(f"the job of the killed driver was not cancelled: {states}")
    bench.report("build-pairs", again, killed="driver", jobs=states)


def _flink_jobs(cluster: Cluster) -> list[dict[str, Any]]:
    overview = flink._ask(f"http://localhost:{cluster.port}", "jobs/overview")
    return list(overview["jobs"])


STEPS: dict[str, Callable[[Bench, Cluster], None]] = {
    **{verb: partial(_run_verb, verb) for verb in jobs.VERBS},
    "kills": _kill_members,
    "driver": _kill_driver,
}
"""Name -> what is done on a cluster of its own."""
_NUM_MEMBERS = {"kills": 3}
"""Members of a cluster; 2 where nothing is said."""
_FAULTS = (jobs.DifferenceError, RuntimeError, DataError, clusters.MissingToolError)
"""Ends of a step after which the others are taken."""


def run(engines: Sequence[EngineName], steps: Sequence[str], folder: Path, tools: Path) -> None:
    """Take the steps on each engine.

    Args:
        engines: names of the engines.
        steps: keys of STEPS.
        folder: folder of inputs and outputs. Of an earlier drill, the inputs and what the
            local runner left are used again.
        tools: folder of what the engines are made of.

    Raises:
        MissingToolError: a program, or what must be downloaded, is missing.
        StepError: steps failed, or left other files than the local runner. The others
            were taken.
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
        failed = []
        for engine in engines:
            for step in steps:
                bench = Bench(inputs=inputs, engine=engine, step=step, folder=folder)
                try:
                    _take(bench, found[engine])
                except _FAULTS as error:
                    _say(engine=engine, step=step, failed=str(error))
                    failed.append(f"{engine} --steps {step}")
    if failed:
        raise StepError(
            f"{len(failed)} of {len(engines) * len(steps)} steps failed: {', '.join(failed)}"
        )


def _take(bench: Bench, tools: clusters.Tools) -> None:
    shutil.rmtree(bench.scratch, ignore_errors=True)
    number = _NUM_MEMBERS.get(bench.step, 2)
    with clusters.running(tools, bench.scratch / "cluster", number) as cluster:
        STEPS[bench.step](bench, cluster)
