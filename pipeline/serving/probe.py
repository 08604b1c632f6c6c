"""The child process of `check.py`: compare published models with their Keras models.

SavedModel directories -> one line of stdout for each, `ANSWER` and a JSON list. They
get a process of their own, like a server: Keras classes registered by training would
hide a SavedModel that cannot be loaded without them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from beam_jobs import startup
from beam_jobs.contracts import object_store

ANSWER = "comparisons: "
"""Begins a line with an answer. Libraries may print other lines."""


def probe(saved_model_dir: str) -> str:
    """Return a JSON list of the comparisons of one SavedModel."""
    # Only now: `main` has prepared the process for this import, which takes seconds.
    from models.published.parity import compare_with_keras

    return json.dumps([dataclasses.asdict(item) for item in compare_with_keras(saved_model_dir)])


def main() -> int:
    """Print the answers for the directories that the command line names, in order."""
    startup.prepare()
    object_store.complete_environment(os.environ)
    for folder in sys.argv[1:]:
        object_store.load_filesystem(folder)
        sys.stdout.write(f"{ANSWER}{probe(folder)}\n")
        # The next model may end the process.
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
