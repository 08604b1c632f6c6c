"""Distillation: unlabeled pairs and a published teacher -> a student that labels alike.

Input: shards of pairs; SavedModels of `segment.py` (the teacher) and `pretrain.py` (the
student's encoder). Output: a Keras segmenter with its card, from which the segmentation
training of the student's task continues; TensorBoard logs. The order of events is that
of `training/scaffold.py`. Runs without TFX.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.labels import LabelSchema
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.published import read_card
from models import input_pipeline, segment
from models.augmentation.augmenter import AugmentFunction, make_augmenter
from models.augmentation.config import GeometryConfig
from models.distillation.config import StudentConfig
from models.distillation.edges import edge_weights
from models.distillation.loss import agreement, distillation_loss
from models.optimization import regimes
from models.optimization.optimizers import make_optimizer
from models.published import card as card_lib
from models.published import export, warm_start
from models.reading import shard_checks
from models.reading.epochs import EpochPlan
from models.segmenter import Segmenter
from models.training import scaffold, training
from models.training.distribution import check_divisible
from models.training.scaffold import Folders, Shards
from models.training.step_log import ProgressCallback
from models.training.steps import Batch, Scalars

TEACHERS = "teacher_"
"""Prefix of the teacher's pixels in a batch.

Photometric augmentation changes only the student's pixels.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentSources:
    """Published models that a distillation learns from.

    Attributes:
        teacher: SavedModel of `run_segmentation`.
        encoder: SavedModel of `run_pretraining` that the student starts from; None =
            none. See `segment.build_segmenter`.
    """

    teacher: str
    encoder: str | None = None


def run_distillation(
    config: StudentConfig,
    shards: Shards,
    folders: Folders,
    *,
    sources: StudentSources,
    name: str = "student",
    on_step: ProgressCallback | None = None,
) -> dict[str, float]:
    """Train a student on the teacher's labels of unlabeled pairs, and write it.

    Args:
        config: what to train and how.
        shards: pairs. Only the train split is read, at least one global batch. The
            tasks are judged on the blocks of the other splits.
        folders: where to write. `run_segmentation` starts from the output.
        sources: teacher, and the encoder that the student starts from.
        name: of the student's task.
        on_step: called after every step.

    Returns:
        `train_loss`, the mean of the last steps.

    Raises:
        ValueError: a teacher that does not fit, shards that are not the manifest's, too
            few pairs, or what `segment.build_segmenter` refuses.
        FileNotFoundError: there is no teacher, or no encoder.
        NonFiniteLossError, CheckpointMismatchError: see `training.train`.
    """
    return scaffold.run(DistillRecipe(config, shards, sources, name), folders, on_step)


class DistillRecipe(scaffold.Recipe[Segmenter]):
    """The stages of a distillation; see `run_distillation` for the arguments."""

    def __init__(
        self, config: StudentConfig, shards: Shards, sources: StudentSources, name: str
    ) -> None:
        self.config, self.seed, self.shards = config, config.segment.seed, shards
        self.sources, self.name = sources, name

    def check(self, strategy: tf.distribute.Strategy) -> None:
        """Refuse a batch that the replicas cannot share; see the base class."""
        # `build` checks the shards: which sensors they need depends on the teacher.
        check_divisible(self.config.distill.global_batch_size, strategy)

    def build(self, strategy: tf.distribute.Strategy) -> training.Fit:
        """Load the teacher; make student, optimizer and data; see the base class."""
        config, manifest = self.config, self.shards.manifest
        num_steps = config.distill.num_steps
        with strategy.scope():
            teacher = load_teacher(self.sources.teacher, config.segment.schema, manifest)
            model = segment.build_segmenter(config.segment, manifest, self.sources.encoder)
            # The paces of the regime hold in this stage too. They are shares of its own
            # steps.
            paced = dataclasses.replace(config.segment.keeping_last(), num_steps=num_steps)
            paces = regimes.make_paces(model, paced)
            optimizer = make_optimizer(
                config.distill.optimizer, num_steps, config.segment.precision, paces
            )
        self._model = model
        return training.Fit(
            model=model,
            compute_loss=functools.partial(_replica_loss, config, teacher, model),
            optimizer=optimizer,
            dataset=_make_train_set(config, teacher, self.shards),
            num_steps=num_steps,
            checkpoint_every=config.segment.checkpoint_every,
        )

    def finish(self) -> Segmenter:
        """Return the trained student in float32."""
        return segment.finish_segmenter(self._model)

    def evaluate(
        self, model: Segmenter, train_loss: float, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return nothing: the student is judged after its training on labels."""
        del model, train_loss, strategy
        return {}

    def export(self, model: Segmenter, output_dir: str, metrics: Mapping[str, float]) -> None:
        """Write the student as the start of its segmentation training."""
        export.export_student(
            model,
            output_dir,
            provenance=card_lib.Provenance(
                name=self.name,
                config=self.config,
                manifest=self.shards.manifest,
                metrics=metrics,
                started_from=segment.encoder_starts(self.config.segment, self.sources.encoder),
            ),
            teacher=self.sources.teacher,
        )


def load_teacher(saved_model_dir: str, schema: LabelSchema, manifest: Manifest) -> Segmenter:
    """Return a published segmenter, with its own normalization, all of it frozen.

    Raises:
        ValueError: it has other classes, other bands than the shards of `manifest`, or
            a stride that does not divide them.
        FileNotFoundError: there is none.
    """
    card = read_card(saved_model_dir)
    if card["label_schema"] != schema.name:
        raise ValueError(
            f"{saved_model_dir}: the teacher must label {schema.name!r}, "
            f"got {card['label_schema']!r}"
        )
    if tuple(card["class_names"]) != schema.class_names:
        raise ValueError(
            f"{saved_model_dir}: the teacher must have classes {', '.join(schema.class_names)}, "
            f"got {', '.join(card['class_names'])}"
        )
    teacher = export.load_segmenter(saved_model_dir)
    for encoder in teacher.encoders.values():
        warm_start.check_bands(saved_model_dir, encoder, manifest)
    if manifest.patch_size_px % teacher.stride:
        raise ValueError(
            f"patch size must be a multiple of the teacher's stride {teacher.stride}, "
            f"got {manifest.patch_size_px}"
        )
    teacher.trainable = False
    return teacher


def _replica_loss(
    config: StudentConfig, teacher: Segmenter, student: Segmenter, batch: Batch
) -> Scalars:
    """Return this replica's part of the loss, and of the share of equal labels."""
    taught = teacher(
        {sensor: batch[TEACHERS + sensor] for sensor in teacher.sensors}, training=False
    )
    outputs = student({sensor: batch[sensor] for sensor in config.segment.sensors}, training=True)
    # Where teacher or student has no data, there is nothing to learn.
    label = segment.mask_label(taught["label"], outputs["valid_mask"])
    weight = edge_weights(label, config.distill.edge_weight, config.distill.edge_radius_px)
    if config.segment.use_weights:
        weight *= batch["weight"][:, tf.newaxis, tf.newaxis]
    logits = taught["logits"], outputs["logits"]
    return {
        "loss": distillation_loss(*logits, weight, config.distill.temperature),
        "agreement": agreement(*logits, weight),
    }


def _make_train_set(
    config: StudentConfig, teacher: Segmenter, shards: Shards
) -> training.DatasetFunction:
    """Check the train split; return its batches from any step on.

    Raises:
        ValueError: the shards do not fit.
    """
    manifest, student, batch_size = (
        shards.manifest,
        config.segment,
        config.distill.global_batch_size,
    )
    sensors = [sensor for sensor in SENSORS if sensor in {*teacher.sensors, *student.sensors}]
    shard_checks.check_split(
        "train", shards.train, manifest, sensors=sensors, num_needed=batch_size
    )
    train_set = functools.partial(
        input_pipeline.train_dataset,
        shards.train,
        input_pipeline.Features(
            num_bands={sensor: len(manifest.bands(sensor)) for sensor in sensors},
            with_weight=student.use_weights,
            with_patch_id=True,
        ),
        EpochPlan(
            num_examples=manifest.num_examples["train"],
            batch_size=batch_size,
            shuffle_buffer=student.shuffle_buffer,
            seed=student.seed,
        ),
        reading=student.input,
        transform=_make_transform(config, teacher, manifest),
    )
    return lambda first_step: train_set(first_step=first_step)


def _make_transform(
    config: StudentConfig, teacher: Segmenter, manifest: Manifest
) -> AugmentFunction:
    """Return the augmentation: one geometry for both, photometry for the student."""
    augment = config.segment.augment
    move = make_augmenter(dataclasses.replace(augment, photometry=None), manifest)
    change = make_augmenter(
        dataclasses.replace(augment, geometry=GeometryConfig(symmetries=False)), manifest
    )

    def transform(batch: Batch, seed: tf.Tensor) -> Batch:
        seeds = tf.unstack(tf.random.split(seed, 2))
        moved = move(batch, seeds[0])
        seen = {TEACHERS + sensor: moved[sensor] for sensor in teacher.sensors}
        # Do not send pixels to the devices that the student does not use.
        own = {
            name: value
            for name, value in moved.items()
            if name not in SENSORS or name in config.segment.sensors
        }
        return change(own, seeds[1]) | seen

    return transform
