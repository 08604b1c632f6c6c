"""Arguments of a Trainer's `run_fn`, as the trainings of `models` take them.

FnArgs -> Shards and Folders. The shards come with the manifest of their data.
"""

from __future__ import annotations

from tfx.components.trainer.fn_args_utils import FnArgs

from components.artifacts import list_files
from components.data_manifest import manifest_from_hyperparameters
from components.trainers.attempts import checkpoint_dir, hash_models
from models.training.scaffold import Folders, Shards


def shards_of(fn_args: FnArgs) -> Shards:
    """Return the shards that a Trainer trains on, and judges by.

    Raises:
        ValueError: there is no manifest.
    """
    return Shards(
        manifest=manifest_from_hyperparameters(fn_args.hyperparameters),
        train=tuple(list_files(fn_args.train_files)),
        eval=tuple(list_files(fn_args.eval_files)),
    )


def folders_of(fn_args: FnArgs, component: str, start: str | None) -> Folders:
    """Return the folders that a Trainer writes.

    Args:
        fn_args: of the Trainer.
        component: what trains, "pretrain" or the task's name.
        start: folder of the model that the training starts from; None = no model.

    Raises:
        FileNotFoundError: `start` is missing or empty.
    """
    return Folders(
        output=fn_args.serving_model_dir,
        logs=fn_args.model_run_dir,
        checkpoints=checkpoint_dir(fn_args, component, hash_models(start)),
    )
