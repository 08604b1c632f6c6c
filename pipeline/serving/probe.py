"""Checks one published model in this process and prints the comparisons as JSON: the child process of `check.py`.

SavedModel directory -> JSON list on the last line of stdout. A fresh process a model, since a server has loaded nothing before
and Keras classes that training registered would hide a SavedModel that cannot stand alone.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from models.card import read_card
from models.export import compare_with_keras


def probe(saved_model_dir: str) -> str:
    """JSON of `{"precision": ..., "comparisons": [...]}` for one SavedModel."""
    comparisons = [dataclasses.asdict(item) for item in compare_with_keras(saved_model_dir)]
    return json.dumps({"precision": read_card(saved_model_dir)["config"]["precision"], "comparisons": comparisons})


if __name__ == "__main__":
    sys.stdout.write(probe(sys.argv[1]) + "\n")
