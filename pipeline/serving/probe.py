"""The child process of `check.py`: compare one published model with its Keras model.

SavedModel directory -> JSON list on the last line of stdout. Each model gets a new
process, like a server: Keras classes registered by training would hide a SavedModel
that cannot be loaded without them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from beam_jobs import startup
from beam_jobs.contracts import object_store


def probe(saved_model_dir: str) -> str:
    """Return a JSON list of the comparisons of one SavedModel."""
    # Only now: `main` has prepared the process for this import, which takes seconds.
    from models.published.parity import compare_with_keras

    return json.dumps([dataclasses.asdict(item) for item in compare_with_keras(saved_model_dir)])


def main() -> int:
    """Print the answer for the directory that the command line names."""
    startup.prepare()
    object_store.complete_environment(os.environ)
    object_store.load_filesystem(sys.argv[1])
    sys.stdout.write(probe(sys.argv[1]) + "\n")
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
