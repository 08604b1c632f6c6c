"""Checks one published model in this process and prints the comparisons as JSON: the child process of `check.py`.

SavedModel directory -> JSON list on the last line of stdout. A fresh process a model,
since a server has loaded nothing before and Keras classes that training registered
would hide a SavedModel that cannot stand alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from beam_jobs.contracts import object_store
from models.published.export import compare_with_keras


def probe(saved_model_dir: str) -> str:
    """JSON list of the comparisons of one SavedModel."""
    return json.dumps([dataclasses.asdict(item) for item in compare_with_keras(saved_model_dir)])


def main() -> int:
    """Prints the answer for the directory that the command line names."""
    object_store.complete_environment(os.environ)
    object_store.load_filesystem(sys.argv[1])
    sys.stdout.write(probe(sys.argv[1]) + "\n")
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
