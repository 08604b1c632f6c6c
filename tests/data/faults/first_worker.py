"""Pretrain as the first of several workers, as a Trainer of the pipeline would.

Usage: python -m tests.data.faults.first_worker VERSION ROOT CONFIG, with the config as
JSON. The others run `terrapair follow`. The published encoders are in ROOT/Format-Serving.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from beam_jobs.contracts import object_store, settings
from beam_jobs.terminal import failures
from components.trainers import workers
from components.trainers.pretrain import run_fn
from models.config import PretrainConfig
from tests.data.runs.make_fn_args import make_fn_args


def main() -> int:
    """Return the exit code that `terrapair node` would have."""
    # "resumed after step ..."
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("terrapair.training").setLevel(logging.INFO)
    version, root, text = sys.argv[1:]
    config = settings.from_dict(PretrainConfig, json.loads(text))
    custom = {"checkpoints_dir": f"{root}/checkpoints", "code": "abc"}
    try:
        run_fn(make_fn_args(Path(version), Path(root), config, **custom))
    except Exception as error:  # noqa: BLE001 - as the program ends
        failure = failures.failure_of(error)
        print(f"error: {failure.message}", file=sys.stderr)
        return failure.exit_code
    workers.tell_end(os.environ)
    return 0


if __name__ == "__main__":
    object_store.run_to_exit(main)
