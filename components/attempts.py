"""Where a Trainer keeps the checkpoints that its next attempt goes on from.

TFX gives every execution folders of its own, so an attempt after a kill could not find
anything there. The folder named here follows from all that decides the outcome of a
training: the next attempt at the same training finds it, and no other does. Called by
the Trainers.
"""

from __future__ import annotations

import hashlib
import json

from tfx.components.trainer.fn_args_utils import FnArgs

CHECKPOINTS_DIR = "checkpoints_dir"
"""Key of the Trainers' custom_config: folder of the run's checkpoints; absent or empty = none are made."""


def checkpoint_dir(fn_args: FnArgs, component: str, start: str) -> str | None:
    """Folder of this training's checkpoints, None when there are to be none.

    Args:
        fn_args: config, code and manifest name the training, together with `start`.
        component: what trains, "pretrain" or the task's name.
        start: encoder that it begins with; empty = from scratch, or named in the
            config.
    """
    custom = fn_args.custom_config
    return training_dir(
        custom.get(CHECKPOINTS_DIR, ""),
        component,
        custom["config"],
        custom.get("code"),
        fn_args.hyperparameters,
        start,
    )


def training_dir(checkpoints_dir: str, component: str, *training: object) -> str | None:
    """Folder for checkpoints of the one training of `component` that is described by `training`, plain values.

    None when `checkpoints_dir` is empty: there are to be none.
    """
    if not checkpoints_dir:
        return None
    digest = hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()
    return f"{checkpoints_dir}/{component}-{digest[:16]}"
