"""Distillation: unlabeled pairs, a published teacher and a pretrained encoder -> a student that labels as the teacher does.

Input: shards of pairs, their manifest, SavedModels of `segment.py` and `pretrain.py`.
Output: a Keras segmenter with its card, from which the segment training of the
student's task goes on; TensorBoard logs. Called by `components/distill_trainer.py`;
runs without TFX.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.manifest import Manifest
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
from models.segmenter import Segmenter, with_segmenter_precision
from models.training import training
from models.training.checkpoints import remove_checkpoints
from models.training.distribution import check_divisible, get_strategy, is_chief
from models.training.step_log import ProgressCallback
from models.training.steps import Batch, Scalars

TEACHERS = "teacher_"
"""Prefix of what the teacher sees in a batch: the photometry of the student's augmentation is none of its business."""


def run_distillation(
    config: StudentConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    output_dir: str,
    log_dir: str,
    teacher_dir: str,
    encoder_dir: str | None,
    on_step: ProgressCallback | None = None,
    name: str = "student",
    checkpoint_dir: str | None = None,
) -> dict[str, float]:
    """Trains the student on what the teacher says of each pair, and writes it.

    Args:
        config: what to train.
        manifest: of the pairs.
        train_files: gzip TFRecords of the pairs' train split, at least one global
            batch. Never of another split, in whose blocks the tasks are judged.
        output_dir: where the student is written, for `run_segmentation`.
        log_dir: where TensorBoard events are written.
        teacher_dir: SavedModel of `run_segmentation`.
        encoder_dir: see `run_segmentation`.
        on_step: told of every step.
        name: of the student's task.
        checkpoint_dir: see `training.train`; empty again when the student is written.

    Returns:
        `train_loss`, the mean of the last steps.

    Raises:
        ValueError: a teacher that does not fit, shards that are not the manifest's, too
            few pairs, what `segment.build_segmenter` refuses, and see `training.train`.
        FileNotFoundError: there is no teacher, or no encoder.
    """
    model, train_loss = _train_student(
        config, manifest, train_files, log_dir, teacher_dir, encoder_dir, on_step, checkpoint_dir
    )
    metrics = {"train_loss": train_loss}
    if is_chief(get_strategy()):
        export.export_student(
            model,
            output_dir,
            name=name,
            config=config,
            manifest=manifest,
            metrics=metrics,
            started_from=segment.encoder_starts(config.segment, encoder_dir),
            teacher=teacher_dir,
        )
        # Not before: a kill while the student is written must not cost the training.
        remove_checkpoints(checkpoint_dir)
    return metrics


def _train_student(
    config: StudentConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    log_dir: str,
    teacher_dir: str,
    encoder_dir: str | None,
    on_step: ProgressCallback | None,
    checkpoint_dir: str | None,
) -> tuple[Segmenter, float]:
    """The trained student, in float32, and the mean loss of its last steps; arguments and errors of `run_distillation`."""
    strategy = get_strategy()  # Before anything else; see `run_pretraining`.
    keras.utils.set_random_seed(config.segment.seed)
    check_divisible(config.distill.global_batch_size, strategy)
    num_steps = config.distill.num_steps
    with strategy.scope():
        teacher = load_teacher(teacher_dir, config.segment.label_schema, manifest)
        model = segment.build_segmenter(config.segment, manifest, encoder_dir)
        # The regime's paces hold in this stage, too; they are shares of its own steps.
        paces = regimes.make_paces(model, dataclasses.replace(config.segment, num_steps=num_steps))
        optimizer = make_optimizer(
            config.distill.optimizer, num_steps, config.segment.precision, paces
        )
    train_loss = training.train(
        strategy=strategy,
        model=model,
        compute_loss=functools.partial(_replica_loss, config, teacher, model),
        optimizer=optimizer,
        dataset=_make_train_set(config, teacher, manifest, train_files),
        num_steps=num_steps,
        log_dir=log_dir,
        on_step=on_step,
        checkpoint_dir=checkpoint_dir,
        checkpoint_every=config.segment.checkpoint_every,
    )
    # Frozen is how it was trained, not what it is; see `train_segmenter`.
    regimes.set_encoders_trainable(model, True)
    return with_segmenter_precision(model, "float32"), train_loss


def load_teacher(saved_model_dir: str, label_schema: str, manifest: Manifest) -> Segmenter:
    """A published segmenter, with its own normalization, that nothing trains.

    Raises:
        ValueError: it has other classes, other bands than the shards of `manifest`, or
            a stride that does not divide them.
        FileNotFoundError: there is none.
    """
    found = card_lib.read_card(saved_model_dir)["label_schema"]
    if found != label_schema:
        raise ValueError(
            f"{saved_model_dir}: the teacher must label {label_schema!r}, got {found!r}"
        )
    teacher = export.load_segmenter(saved_model_dir)
    for encoder in teacher.encoders.values():
        warm_start.check_bands(saved_model_dir, encoder, manifest)
    if manifest.patch_size_px % teacher.stride:
        raise ValueError(
            f"patch size must be a multiple of the teacher's stride {teacher.stride}, got {manifest.patch_size_px}"
        )
    teacher.trainable = False
    return teacher


def _replica_loss(
    config: StudentConfig, teacher: Segmenter, student: Segmenter, batch: Batch
) -> Scalars:
    """This replica's part of the loss, and of the share of pixels on which both agree."""
    taught = teacher(
        {sensor: batch[TEACHERS + sensor] for sensor in teacher.sensors}, training=False
    )
    outputs = student({sensor: batch[sensor] for sensor in config.segment.sensors}, training=True)
    # What either of them cannot see teaches nothing.
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
    config: StudentConfig, teacher: Segmenter, manifest: Manifest, train_files: Sequence[str]
) -> training.DatasetFunction:
    student, batch_size = config.segment, config.distill.global_batch_size
    sensors = [sensor for sensor in SENSORS if sensor in {*teacher.sensors, *student.sensors}]
    shard_checks.check_split("train", train_files, manifest, sensors=sensors, num_needed=batch_size)
    num_bands = {"s1": len(manifest.s1_bands), "s2": len(manifest.s2_bands)}
    train_set = functools.partial(
        input_pipeline.train_dataset,
        train_files,
        num_examples=manifest.num_examples["train"],
        num_bands={sensor: num_bands[sensor] for sensor in sensors},
        with_label=False,
        batch_size=batch_size,
        shuffle_buffer=student.shuffle_buffer,
        reading=student.input,
        seed=student.seed,
        with_weight=student.use_weights,
        transform=_make_transform(config, teacher, manifest),
        with_patch_id=True,
    )
    return lambda first_step: train_set(first_step=first_step)


def _make_transform(
    config: StudentConfig, teacher: Segmenter, manifest: Manifest
) -> AugmentFunction:
    """The same geometry for both, photometry for the student alone."""
    augment = config.segment.augment
    move = make_augmenter(dataclasses.replace(augment, photometry=None), manifest)
    change = make_augmenter(
        dataclasses.replace(augment, geometry=GeometryConfig(symmetries=False)), manifest
    )

    def transform(batch: Batch, seed: tf.Tensor) -> Batch:
        seeds = tf.unstack(tf.random.split(seed, 2))
        moved = move(batch, seeds[0])
        seen = {TEACHERS + sensor: moved[sensor] for sensor in teacher.sensors}
        # What the student does not look at must not be sent to the devices.
        own = {
            name: value
            for name, value in moved.items()
            if name not in SENSORS or name in config.segment.sensors
        }
        return change(own, seeds[1]) | seen

    return transform
