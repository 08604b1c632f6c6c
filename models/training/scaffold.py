"""The order of events that all trainers share, from the first check to the export.

Input: a `Recipe` (what one kind of training does in each stage) and the folders to
write to. Output: the metrics; the recipe has written its model. The recipes are in
`models.pretrain`, `models.segment` and `models.distillation.train`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import keras
import tensorflow as tf

from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.shards import named_damage
from models.training import training
from models.training.checkpoints import remove_checkpoints
from models.training.distribution import get_strategy, is_chief, named_loss
from models.training.step_log import ProgressCallback

ModelT = TypeVar("ModelT")


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The files of one data version that a training reads.

    Attributes:
        manifest: of the version. Bands and statistics of the train split come from it.
        train: gzip TFRecords of the train split.
        eval: gzip TFRecords of the eval split; empty for a training that reads none.
    """

    manifest: Manifest
    train: tuple[str, ...]
    eval: tuple[str, ...] = ()

    def files(self) -> tuple[str, ...]:
        """Return the files of both splits."""
        return (*self.train, *self.eval)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a training writes.

    Attributes:
        output: folder of the exported model.
        logs: folder of the TensorBoard events.
        checkpoints: folder for the checkpoints of this training alone, the same in
            every attempt. It is removed when the model is exported. None = keep no
            checkpoints.
    """

    output: str
    logs: str
    checkpoints: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trained(Generic[ModelT]):
    """A trained model that is not exported yet.

    Attributes:
        model: in float32.
        train_loss: mean over the last steps; NaN when nothing was trained.
        step: updates after which the model has these weights.
    """

    model: ModelT
    train_loss: float
    step: int


class Recipe(abc.ABC, Generic[ModelT]):
    """What one kind of training does in each stage of `run`.

    Attributes:
        seed: of weights, shuffling and augmentation.
        shards: that the training reads.
    """

    seed: int
    shards: Shards

    @abc.abstractmethod
    def check(self, strategy: tf.distribute.Strategy) -> None:
        """Refuse sizes and shards that do not fit, before anything is built.

        Raises:
            ValueError: with the rule and the value, in one line.
        """

    @abc.abstractmethod
    def build(self, strategy: tf.distribute.Strategy) -> training.Fit:
        """Return what the training loop needs, its variables made in the scope."""

    @abc.abstractmethod
    def finish(self) -> ModelT:
        """Return the trained model in float32, ready to be evaluated and exported."""

    @abc.abstractmethod
    def evaluate(
        self, model: ModelT, train_loss: float, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the metrics of the finished model, or {}; without the train loss."""

    @abc.abstractmethod
    def export(self, model: ModelT, output_dir: str, metrics: Mapping[str, float]) -> None:
        """Write the model and its card below `output_dir`."""


def run(
    recipe: Recipe[ModelT], folders: Folders, on_step: ProgressCallback | None = None
) -> dict[str, float]:
    """Train, evaluate and export a model; return `train_loss` and the recipe's metrics.

    With several workers every worker trains and evaluates, since both use collective
    operations. Only the chief writes.

    Args:
        recipe: what is trained.
        folders: where to write.
        on_step: called after every step.

    Raises:
        ValueError: the recipe refuses its config or its shards.
        DamagedShardError: a shard cannot be read whole; the message names it.
        LostWorkerError: another worker of several is gone.
        NonFiniteLossError, NoValidPairError, CheckpointMismatchError: see
            `training.train`.
    """
    trained = fit(recipe, folders, on_step)
    strategy = get_strategy()
    with named_loss(), named_damage(recipe.shards.files, recipe.shards.manifest):
        scores = recipe.evaluate(trained.model, trained.train_loss, strategy)
    metrics = {"train_loss": trained.train_loss, **scores}
    if is_chief(strategy):
        if scores:
            training.write_metrics(folders.logs, trained.step, metrics)
        recipe.export(trained.model, folders.output, metrics)
        # Remove the checkpoints only after the export: a process that is killed while
        # it exports must not lose the training.
        remove_checkpoints(folders.checkpoints)
    return metrics


def fit(
    recipe: Recipe[ModelT], folders: Folders, on_step: ProgressCallback | None = None
) -> Trained[ModelT]:
    """Train a model, but do not evaluate or export it; arguments and errors of `run`.

    The checkpoint of the last step is kept.
    """
    # First of all: several workers must know each other before TensorFlow starts.
    strategy = get_strategy()
    with named_loss(), named_damage(recipe.shards.files, recipe.shards.manifest):
        return _fit(recipe, folders, on_step, strategy)


def _fit(
    recipe: Recipe[ModelT],
    folders: Folders,
    on_step: ProgressCallback | None,
    strategy: tf.distribute.Strategy,
) -> Trained[ModelT]:
    # Before datasets and weights are made: both draw from the global seed.
    keras.utils.set_random_seed(recipe.seed)
    # Before the model is built: bad data must not cost minutes of building.
    recipe.check(strategy)
    work = recipe.build(strategy)
    if work.is_control:
        # Open the dataset all the same: it refuses a cache that cannot be filled.
        work.dataset(0)
        train_loss = math.nan
    else:
        train_loss = training.train(
            strategy,
            work,
            log_dir=folders.logs,
            checkpoint_dir=folders.checkpoints,
            on_step=on_step,
        )
    # Publish float32, whatever the training computed in: many serving CPUs emulate half
    # precision, slowly. Evaluation comes after the change, so that the metrics describe
    # the published model.
    return Trained(model=recipe.finish(), train_loss=train_loss, step=work.kept_step)
