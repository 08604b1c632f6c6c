"""Entry point of the worker processes of the local Beam runner.

Beam sends the log of a worker to the process that runs the job. While Beam is imported
it also logs a warning (that crcmod is missing). Python then prints this and every later
record to the terminal, unless the root logger has a handler.
"""

from __future__ import annotations

import logging
import sys

from beam_jobs import startup


def main() -> None:
    """Run Beam's worker, with a log that does not reach the terminal."""
    startup.prepare()
    logging.getLogger().addHandler(logging.NullHandler())
    # Only now: the import logs.
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
