"""Run the data jobs on clusters of Flink and Spark on this machine, and kill members.

    python -m tests.engines [flink] [spark]

Each job must leave the bytes of the local runner: on a sound cluster, after the loss of
a TaskManager or of a Spark worker while patches are cut and while a shard is written,
and when it is run again after its driver was killed. Each line printed is one JSON
object. Exit code 1: a step failed; `--work FOLDER flink --steps predict` takes one alone.
Exit code 2: a program such as Java is missing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import get_args

from tests.engines import clusters

STEPS = ("build-pairs", "build-labels", "predict", "fetch", "kills", "driver")


def main() -> int:
    """Check the engines that the command line names, all without any."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="flink or spark; both")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--tools", type=Path, default=Path("build/engines"))
    parser.add_argument("--work", type=Path, help="folder that is kept; none: a temporary one")
    asked = parser.parse_args()
    known = get_args(clusters.EngineName)
    if unknown := set(asked.engines) - set(known):
        parser.error(f"no engine {', '.join(sorted(unknown))}: flink or spark")
    # A cluster must not outlive the one who ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        clusters.check_programs()
        # Only now: they import TensorFlow.
        from beam_jobs import startup

        startup.prepare()
        from tests.engines import drill

        with tempfile.TemporaryDirectory(prefix="terrapair-engines-") as scratch:
            folder = (asked.work or Path(scratch)).resolve()
            try:
                drill.run(asked.engines or known, asked.steps, folder, asked.tools.resolve())
            except drill.StepError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
    except clusters.MissingToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
