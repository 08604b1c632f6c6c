"""Entry point of every container of the compiled pipeline: makes object stores ready, then runs the module of TFX it is given.

`python -m pipeline.runners.pod <module> <arguments>`; `kubeflow_runner.py` puts it into
the specification. TFX's own entry points know nothing of s3:// and would end with
tensorflow-io's abort after work that was done.
"""

from __future__ import annotations

import os
import runpy
import sys

from beam_jobs.contracts import object_store

COMMAND = ("python", "-m", "pipeline.runners.pod")


def main() -> int:
    """Runs the module that the command line names, as `python -m` would; its SystemExit is the process's."""
    object_store.complete_environment(os.environ)
    object_store.load_filesystem("s3://")
    # The module reads its own arguments from sys.argv, as if this one were not there.
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
