"""Segmentation: labelled patches and what it starts from -> a published segmenter.

Input: labelled shards, their manifest; a SavedModel of `pretrain.py`, a student of
`distillation`, or nothing. Output: a SavedModel with `serving_default` and
`serve_examples`, TensorBoard logs, metrics. Called by the segment Trainers of
`components`; runs without TFX.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import IGNORE, get_schema
from beam_jobs.contracts.manifest import Manifest
from models import input_pipeline
from models.augmentation.augmenter import AugmentFunction, make_augmenter
from models.augmentation.sensor_dropout import drop_sensor
from models.encoders import build_encoder
from models.optimization import regimes
from models.optimization.optimizers import make_optimizer
from models.pixel_losses.segment_loss import SegmentLoss, make_segment_loss
from models.published import export, warm_start
from models.reading import shard_checks
from models.scores.patch_scores import PatchScores
from models.scores.scoring import score_patches, tune_threshold
from models.scores.summary import summarize
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter, with_segmenter_precision
from models.training import training
from models.training.checkpoints import remove_checkpoints
from models.training.distribution import check_divisible, get_strategy, is_chief
from models.training.step_log import ProgressCallback
from models.training.steps import Batch, Scalars


def run_segmentation(
    config: SegmentConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    output_dir: str,
    log_dir: str,
    encoder_dir: str | None,
    on_step: ProgressCallback | None = None,
    name: str = "segmenter",
    checkpoint_dir: str | None = None,
    student_dir: str | None = None,
) -> dict[str, float]:
    """Trains from the own checkpoint, else from `student_dir`, else from `encoder_dir`, else from scratch; scores, publishes.

    Args:
        config: what to train.
        manifest: of the labelled shards.
        train_files: gzip TFRecords of the train split, at least one global batch.
        eval_files: gzip TFRecords of the eval split, at least one example.
        output_dir: where the SavedModel is written.
        log_dir: where TensorBoard events are written.
        encoder_dir: SavedModel of `run_pretraining`; None = none. See
            `build_segmenter`.
        on_step: told of every step.
        name: under which the model is served.
        checkpoint_dir: see `training.train`; empty again when the segmenter is
            published.
        student_dir: what `run_distillation` wrote, all of whose weights are the start;
            None = none.

    Returns:
        `train_loss` (mean of the last steps) and what `summarize` returns for the eval
        split.

    Raises:
        ValueError: shards without labels or not the manifest's, too few examples, a
            class without pixels to be balanced, what `build_segmenter` refuses, and see
            `training.train`.
    """
    model, train_loss = train_segmenter(
        config,
        manifest,
        train_files,
        eval_files,
        log_dir,
        encoder_dir,
        on_step,
        checkpoint_dir,
        student_dir,
    )
    strategy = get_strategy()
    scores = _score(config, strategy, model, eval_files)
    metrics = {"train_loss": train_loss, **summarize(scores)}
    if is_chief(strategy):
        training.write_metrics(log_dir, config.num_steps, metrics)
        export.export_segmenter(
            model,
            output_dir,
            name=name,
            config=config,
            manifest=manifest,
            metrics=metrics,
            scores=scores,
            started_from=dict.fromkeys(config.sensors, student_dir)
            if student_dir
            else encoder_starts(config, encoder_dir),
        )
        # Not before: a kill during the export must not cost the training.
        remove_checkpoints(checkpoint_dir)
    return metrics


def train_segmenter(
    config: SegmentConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    log_dir: str,
    encoder_dir: str | None,
    on_step: ProgressCallback | None = None,
    checkpoint_dir: str | None = None,
    student_dir: str | None = None,
) -> tuple[Segmenter, float]:
    """The trained segmenter, in float32, and the mean loss of its last steps; arguments and errors of `run_segmentation`."""
    strategy = get_strategy()  # Before anything else; see `run_pretraining`.
    keras.utils.set_random_seed(config.seed)
    check_divisible(config.global_batch_size, strategy)
    dataset = _make_train_set(config, manifest, train_files, eval_files)
    class_names = get_schema(config.label_schema).class_names
    loss = make_segment_loss(
        config.loss, class_names, manifest.num_pixels_per_class.get("train", {})
    )
    with strategy.scope():
        model = build_segmenter(config, manifest, encoder_dir, student_dir)
        paces = regimes.make_paces(model, config)
        optimizer = make_optimizer(config.optimizer, config.num_steps, config.precision, paces)
    train_loss = training.train(
        strategy=strategy,
        model=model,
        compute_loss=functools.partial(replica_loss, config, model, loss),
        optimizer=optimizer,
        dataset=dataset,
        num_steps=config.num_steps,
        log_dir=log_dir,
        on_step=on_step,
        checkpoint_dir=checkpoint_dir,
        checkpoint_every=config.checkpoint_every,
    )
    # Frozen is how it was trained, not what it is: who starts from it says so anew.
    regimes.set_encoders_trainable(model, True)
    # Published in float32, and scored after the change; see `run_pretraining`.
    return with_segmenter_precision(model, "float32"), train_loss


def _score(
    config: SegmentConfig,
    strategy: tf.distribute.Strategy,
    model: Segmenter,
    eval_files: Sequence[str],
) -> PatchScores:
    """Scores of the eval split, at the threshold that `model` gets from them if it is to."""
    class_names = get_schema(config.label_schema).class_names
    scores = score_patches(model, eval_files, class_names, batch_size=config.global_batch_size)
    if not config.tune_threshold:
        return scores
    # In its scope all replicas' copies of the variable are assigned.
    with strategy.scope():
        return tune_threshold(model, scores)


def build_segmenter(
    config: SegmentConfig,
    manifest: Manifest,
    encoder_dir: str | None,
    student_dir: str | None = None,
) -> Segmenter:
    """A segmenter with pretrained encoders and their normalization, or with new ones; or a distilled student.

    A student of `student_dir` is taken whole. Else each sensor's encoder comes from
    `config.encoder_paths`, else from `encoder_dir`, else it is new, with the statistics
    of `manifest`; under the regime "scratch" all are new. Which of its variables train
    is what the regime says.

    Raises:
        ValueError: a pretrained encoder is of another sensor, has other bands or
            another architecture, likewise a student, or the stride does not divide the
            patch size of `manifest`.
        FileNotFoundError: a path holds no encoder, or no student.
    """
    stride = config.encoder.stride
    if manifest.patch_size_px % stride:
        raise ValueError(
            f"patch size must be a multiple of the stride {stride}, got {manifest.patch_size_px}"
        )
    model = (
        warm_start.load_student(student_dir, config, manifest)
        if student_dir
        else _join_encoders(config, manifest, encoder_dir)
    )
    regimes.set_encoders_trainable(model, config.trains_encoder)
    return model


def _join_encoders(config: SegmentConfig, manifest: Manifest, encoder_dir: str | None) -> Segmenter:
    """Pretrained or new encoders under a new head."""
    starts = encoder_starts(config, encoder_dir)
    pretrained = warm_start.load_encoders(starts, config.encoder, manifest, config.precision)
    encoders = {
        sensor: pretrained.get(sensor)
        or build_encoder(config.encoder, sensor, manifest, config.precision)
        for sensor in config.sensors
    }
    return Segmenter(
        encoders=encoders,
        num_classes=get_schema(config.label_schema).num_classes,
        decoder_channels=config.decoder_channels,
        head=config.head,
        precision=config.precision,
    )


def encoder_starts(config: SegmentConfig, encoder_dir: str | None) -> dict[Sensor, str]:
    """The pretrained encoder of each sensor that has one."""
    if config.regime == "scratch":
        return {}
    paths = {sensor: config.encoder_paths.get(sensor) or encoder_dir for sensor in config.sensors}
    return {sensor: path for sensor, path in paths.items() if path}


def replica_loss(
    config: SegmentConfig, model: Segmenter, loss: SegmentLoss, batch: Batch
) -> Scalars:
    """This replica's part of the loss over the labelled pixels of the global batch."""
    outputs = model({sensor: batch[sensor] for sensor in config.sensors}, training=True)
    label = mask_label(batch["label"], outputs["valid_mask"])
    weight = batch["weight"] if config.use_weights else tf.ones(tf.shape(label)[:1])
    return loss(label, outputs["logits"], weight)


def mask_label(label: tf.Tensor, valid_mask: tf.Tensor) -> tf.Tensor:
    """`label` uint8 [B, H, W] as int32, with 255 where `valid_mask` [B, H, W, 1] says that no input sensor has data."""
    return tf.where(valid_mask[..., 0] > 0, tf.cast(label, tf.int32), IGNORE)


def _make_train_set(
    config: SegmentConfig, manifest: Manifest, train_files: Sequence[str], eval_files: Sequence[str]
) -> training.DatasetFunction:
    # Both splits before the first step: a training that cannot be scored is lost.
    if manifest.label_schema != config.label_schema:
        raise ValueError(
            f"label_schema is {config.label_schema!r}, but the shards hold {manifest.label_schema!r}"
        )
    for split, files, num_needed in (
        ("train", train_files, config.global_batch_size),
        ("eval", eval_files, 1),
    ):
        shard_checks.check_split(
            split, files, manifest, sensors=config.sensors, with_label=True, num_needed=num_needed
        )
    # Only the sensors of the task are decoded: Sentinel-2 is most of the bytes, and a
    # flood task does not look at it.
    num_bands = {sensor: len(_bands(manifest, sensor)) for sensor in config.sensors}
    train_set = functools.partial(
        input_pipeline.train_dataset,
        train_files,
        num_examples=manifest.num_examples["train"],
        num_bands=num_bands,
        with_label=True,
        batch_size=config.global_batch_size,
        shuffle_buffer=config.shuffle_buffer,
        reading=config.input,
        seed=config.seed,
        with_weight=config.use_weights,
        transform=_make_transform(config, manifest),
        with_patch_id=True,
    )
    return lambda first_step: train_set(first_step=first_step)


def _make_transform(config: SegmentConfig, manifest: Manifest) -> AugmentFunction:
    """What happens to each batch of training: augmentation, and sensors that drop out."""
    augment = make_augmenter(config.augment, manifest)
    if not config.modality_dropout:
        return augment

    def transform(batch: Batch, seed: tf.Tensor) -> Batch:
        seeds = tf.unstack(tf.random.split(seed, 2))
        return drop_sensor(augment(batch, seeds[0]), config.modality_dropout, seeds[1])

    return transform


def _bands(manifest: Manifest, sensor: Sensor) -> tuple[str, ...]:
    return manifest.s1_bands if sensor == "s1" else manifest.s2_bands
