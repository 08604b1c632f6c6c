"""Make the arguments that the Trainer of TFX gives to a `run_fn`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.components.trainer.fn_args_utils import FnArgs

from beam_jobs.contracts import settings


def make_fn_args(
    version: Path, root: Path, config: Any, base_model: str | None = None, **custom: Any
) -> FnArgs:
    """Return the arguments of a Trainer that reads `version` and writes below `root`.

    `custom` is added to `custom_config`, next to the config.
    """
    return FnArgs(
        train_files=[str(version / "train" / "*")],
        eval_files=[str(version / "eval" / "*")],
        serving_model_dir=str(root / "Format-Serving"),
        model_run_dir=str(root / "model_run"),
        hyperparameters=json.loads((version / "manifest.json").read_text()),
        custom_config={"config": settings.canonical_json(config), **custom},
        base_model=base_model,
    )
