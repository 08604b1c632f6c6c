"""Checkpoint folders: where a training that was killed is continued.

TFX gives every execution new folders, so a second attempt would not find the
checkpoints of the first. The folder named here is derived from everything that decides
the result: the same training always gets the same folder, another training never does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from tfx.components.trainer.fn_args_utils import FnArgs

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.object_store import is_remote

CHECKPOINTS_DIR = "checkpoints_dir"
"""Key in the Trainers' custom_config: folder of the run's checkpoints.

If it is absent or empty, no checkpoints are written.
"""
ENCODERS = "encoders"
"""Key in the custom_config: hashes of the encoders, by `hash_encoders`."""


def checkpoint_dir(fn_args: FnArgs, component: str, start: str) -> str | None:
    """Return the checkpoint folder of a Trainer's training; None: no checkpoints.

    Args:
        fn_args: its config, code and manifest identify the training, with `start`.
        component: what trains, "pretrain" or the task's name.
        start: hash of the model that the training starts from, by `hash_models`;
            empty = none, or named in the config.
    """
    custom = fn_args.custom_config
    return training_dir(
        custom.get(CHECKPOINTS_DIR, ""),
        component,
        custom["config"],
        custom.get("code"),
        custom.get(ENCODERS),
        fn_args.hyperparameters,
        start,
    )


def hash_models(*models: str | None) -> str:
    """Return the hashes of models, with spaces between; "" without models.

    A path does not identify a model: a run that begins anew in an old folder has other
    models under the same paths.

    Args:
        models: folders of the models; None = no model.

    Raises:
        FileNotFoundError: a folder is missing or empty.
    """
    return " ".join(tree_sha256(path) for path in models if path)


def hash_encoders(encoder_paths: Mapping[Sensor, str]) -> dict[Sensor, str]:
    """Return sensor -> hash of the encoder that a config names by its path.

    Trainers carry the hashes, because TFX's cache does not see what lies at a path. The
    hash is "" if the encoder is missing or on an object store: a pipeline is also
    compiled where its data cannot be reached.
    """
    found: dict[Sensor, str] = {}
    for sensor, path in sorted(encoder_paths.items()):
        try:
            found[sensor] = "" if is_remote(path) else tree_sha256(path)
        except OSError:
            found[sensor] = ""
    return found


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
