"""Entry point of the worker processes of the local Beam runner.

Beam sends the log of a worker to the process that runs the job. While Beam is imported
it also logs a warning (that crcmod is missing). Python then prints this and every later
record to the terminal, unless the root logger has a handler. When a step fails, the
worker also prints the traceback that it sends to the job. The job shows its last line,
or all of it with `--debug`.

A worker ends with the process that started it. Otherwise it would go on after a
`kill -9` of that process, and write beside the job that is started next.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

from beam_jobs import startup
from beam_jobs.contracts.object_store import run_to_exit

_LOOK_EVERY_SECONDS = 0.5


def end_with_parent(parent: int | None = None) -> None:
    """Watch the parent of this process, and end this process when it is gone.

    Args:
        parent: its process id, if the caller knows it; None = the parent of now.
    """
    if parent is None:
        parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Run Beam's worker and return 0; no log or traceback reaches the terminal."""
    startup.prepare()
    logging.getLogger().addHandler(logging.NullHandler())
    end_with_parent()
    # Only Python's stream: what a crash of native code says is still seen.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
    # Only now: the import logs.
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)
    return 0


if __name__ == "__main__":
    # A model on an object store is opened by tensorflow-io.
    run_to_exit(main)
