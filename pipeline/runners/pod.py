"""Entry point of every container of a PipelineJob: run a TFX module on s3://.

`python -m pipeline.runners.pod <module> <arguments>`, as `vertex.py` writes it into
the specification. TFX's own entry points cannot read s3://, and tensorflow-io would
abort the process at exit although the work is done.
"""

from __future__ import annotations

import os
import runpy
import sys

from beam_jobs.contracts import object_store

COMMAND = ("python", "-m", "pipeline.runners.pod")


def main() -> int:
    """Run the module that the command line names, as `python -m` would.

    The module's SystemExit ends the process.
    """
    object_store.complete_environment(os.environ)
    if any("s3://" in argument for argument in sys.argv[1:]):
        object_store.load_filesystem("s3://")
    # The module reads its own arguments from sys.argv, so remove this program's name.
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
