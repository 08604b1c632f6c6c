"""Checkpoint folders: where a training that was killed is continued.

TFX gives every execution new folders, so a second attempt would not find the
checkpoints of the first. The folder named here is derived from everything that decides
the result: the same training always gets the same folder, another training never does.
"""

from __future__ import annotations

import hashlib
import json

from tfx.components.trainer.fn_args_utils import FnArgs

CHECKPOINTS_DIR = "checkpoints_dir"
"""Key in the Trainers' custom_config: folder of the run's checkpoints.

If it is absent or empty, no checkpoints are written.
"""


def checkpoint_dir(fn_args: FnArgs, component: str, start: str) -> str | None:
    """Return the checkpoint folder of a Trainer's training; None: no checkpoints.

    Args:
        fn_args: its config, code and manifest identify the training, with `start`.
        component: what trains, "pretrain" or the task's name.
        start: encoder that the training starts from; empty = none, or named in the
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
    """Return the checkpoint folder of one training; None: no checkpoints.

    Args:
        checkpoints_dir: folder of the run's checkpoints; empty = none are written.
        component: start of the folder's name.
        training: JSON values that identify the training; their hash ends the name.
    """
    if not checkpoints_dir:
        return None
    digest = hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()
    return f"{checkpoints_dir}/{component}-{digest[:16]}"
