"""Segmentation: labelled patches and, if there is one, a pretrained encoder -> a published segmenter.

Input: labelled shards, their manifest, a SavedModel of `pretrain.py` or nothing. Output: a SavedModel with `serving_default`
and `serve_examples`, TensorBoard logs, metrics. Called by the segment Trainers of `components`; runs without TFX.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import IGNORE, get_schema
from beam_jobs.contracts.manifest import Manifest
from models import export, input_pipeline, metrics, regimes, training, warm_start
from models.augmentation.augmenter import AugmentFunction, make_augmenter
from models.augmentation.sensor_dropout import drop_sensor
from models.checkpoints import remove_checkpoints
from models.config import SegmentConfig
from models.distribution import check_divisible, get_strategy, is_chief
from models.encoders import build_encoder
from models.optimizers import make_optimizer
from models.pixel_losses.segment_loss import SegmentLoss, make_segment_loss
from models.reading import shard_checks
from models.segmenter import Segmenter, with_segmenter_precision
from models.step_log import ProgressCallback
from models.steps import Batch, Scalars


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
) -> dict[str, float]:
    """Trains from the own checkpoint, else from the encoders of `encoder_dir`, else from scratch; evaluates, publishes.

    Args:
        config: what to train.
        manifest: of the labelled shards.
        train_files: gzip TFRecords of the train split, at least one global batch.
        eval_files: gzip TFRecords of the eval split, at least one example.
        output_dir: where the SavedModel is written.
        log_dir: where TensorBoard events are written.
        encoder_dir: SavedModel of `run_pretraining`; None = none. See `build_segmenter`.
        on_step: told of every step.
        name: under which the model is served.
        checkpoint_dir: see `training.train`; empty again when the segmenter is published.

    Returns:
        `train_loss` (mean of the last steps) and what `evaluate` returns.

    Raises:
        ValueError: shards without labels or not the manifest's, too few examples, a class without pixels to be balanced, what
            `build_segmenter` refuses, and see `training.train`.
    """
    strategy = get_strategy()  # Before anything else; see `run_pretraining`.
    keras.utils.set_random_seed(config.seed)
    check_divisible(config.global_batch_size, strategy)
    train_set, eval_set = _make_datasets(config, manifest, train_files, eval_files)
    model, loss = _train(config, manifest, train_set, strategy, log_dir, encoder_dir, on_step, checkpoint_dir)
    # Published in float32, and evaluated after the change; see `run_pretraining`.
    model = with_segmenter_precision(model, "float32")
    scores = {"train_loss": loss, **evaluate(model, eval_set, get_schema(config.label_schema).class_names)}
    if is_chief(strategy):
        training.write_metrics(log_dir, config.num_steps, scores)
        export.export_segmenter(
            model,
            output_dir,
            name=name,
            config=config,
            manifest=manifest,
            metrics=scores,
            started_from=_starts(config, encoder_dir),
        )
        # Not before: a kill during the export must not cost the training.
        remove_checkpoints(checkpoint_dir)
    return scores


def build_segmenter(config: SegmentConfig, manifest: Manifest, encoder_dir: str | None) -> Segmenter:
    """A segmenter with pretrained encoders and their normalization, or with new ones.

    Each sensor's encoder comes from `config.encoder_paths`, else from `encoder_dir`, else it is new, with the statistics of
    `manifest`; under the regime "scratch" all are new. Which of its variables train is what the regime says.

    Raises:
        ValueError: a pretrained encoder is of another sensor, has other bands or another architecture, or the stride does
            not divide the patch size of `manifest`.
        FileNotFoundError: a path holds no encoder.
    """
    stride = config.encoder.stride
    if manifest.patch_size_px % stride:
        raise ValueError(f"patch size must be a multiple of the stride {stride}, got {manifest.patch_size_px}")
    pretrained = warm_start.load_encoders(_starts(config, encoder_dir), config.encoder, manifest, config.precision)
    encoders = {
        sensor: pretrained.get(sensor) or build_encoder(config.encoder, sensor, manifest, config.precision)
        for sensor in config.sensors
    }
    model = Segmenter(
        encoders=encoders,
        num_classes=get_schema(config.label_schema).num_classes,
        decoder_channels=config.decoder_channels,
        head=config.head,
        precision=config.precision,
    )
    regimes.set_encoders_trainable(model, config.trains_encoder)
    return model


def _train(
    config: SegmentConfig,
    manifest: Manifest,
    dataset: training.DatasetFunction,
    strategy: tf.distribute.Strategy,
    log_dir: str,
    encoder_dir: str | None,
    on_step: ProgressCallback | None,
    checkpoint_dir: str | None,
) -> tuple[Segmenter, float]:
    """The trained segmenter, in the precision of the training, and its loss; see `run_segmentation`."""
    class_names = get_schema(config.label_schema).class_names
    loss = make_segment_loss(config.loss, class_names, manifest.num_pixels_per_class.get("train", {}))
    with strategy.scope():
        model = build_segmenter(config, manifest, encoder_dir)
        paces = regimes.make_paces(model, config)
        optimizer = make_optimizer(config.optimizer, config.num_steps, config.precision, paces)
    train_loss = training.train(
        strategy=strategy,
        model=model,
        compute_loss=functools.partial(_replica_loss, config, model, loss),
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
    return model, train_loss


def _starts(config: SegmentConfig, encoder_dir: str | None) -> dict[Sensor, str]:
    """The pretrained encoder of each sensor that has one."""
    if config.regime == "scratch":
        return {}
    paths = {sensor: config.encoder_paths.get(sensor) or encoder_dir for sensor in config.sensors}
    return {sensor: path for sensor, path in paths.items() if path}


def _replica_loss(config: SegmentConfig, model: Segmenter, loss: SegmentLoss, batch: Batch) -> Scalars:
    """This replica's part of the loss over the labelled pixels of the global batch."""
    outputs = model({sensor: batch[sensor] for sensor in config.sensors}, training=True)
    label = mask_label(batch["label"], outputs["valid_mask"])
    weight = batch["weight"] if config.use_weights else tf.ones(tf.shape(label)[:1])
    return loss(label, outputs["logits"], weight)


def mask_label(label: tf.Tensor, valid_mask: tf.Tensor) -> tf.Tensor:
    """`label` uint8 [B, H, W] as int32, with 255 where `valid_mask` [B, H, W, 1] says that no input sensor has data."""
    return tf.where(valid_mask[..., 0] > 0, tf.cast(label, tf.int32), IGNORE)


def evaluate(model: Segmenter, dataset: tf.data.Dataset, class_names: Sequence[str]) -> dict[str, float]:
    """Scores over the pooled pixels that have a label and data in at least one input sensor.

    Returns:
        `loss` (mean cross-entropy per pixel, whatever loss was trained with), `mean_iou`, `pixel_accuracy`, and
        `iou/<class>`, `f1/<class>`; NaN where a class occurs neither in truth nor prediction, and everywhere when no pixel
        counts.
    """
    num_classes = len(class_names)

    @tf.function(reduce_retracing=True)
    def score(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = model({sensor: batch[sensor] for sensor in model.sensors}, training=False)
        label = mask_label(batch["label"], outputs["valid_mask"])
        counted = tf.reshape(label, [-1]) != IGNORE
        pixel_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.boolean_mask(tf.reshape(label, [-1]), counted),
            tf.boolean_mask(tf.reshape(outputs["logits"], [-1, num_classes]), counted),
        )
        return tf.reduce_sum(pixel_loss), metrics.tf_confusion_matrix(label, outputs["label"], num_classes)

    # Sums over all batches, divided once at the end: batches with few labels must not weigh as much as full ones.
    total_loss, cm = 0.0, np.zeros((num_classes, num_classes), np.int64)
    for batch in dataset:
        batch_loss, batch_cm = score(batch)
        total_loss += float(batch_loss)
        cm += batch_cm.numpy()
    num_pixels = int(cm.sum())
    iou, f1 = metrics.iou_per_class(cm), metrics.f1_per_class(cm)
    return {
        "loss": total_loss / num_pixels if num_pixels else float("nan"),
        "mean_iou": metrics.mean_iou(cm),
        "pixel_accuracy": metrics.pixel_accuracy(cm),
        **{f"iou/{name}": float(value) for name, value in zip(class_names, iou, strict=True)},
        **{f"f1/{name}": float(value) for name, value in zip(class_names, f1, strict=True)},
    }


def _make_datasets(
    config: SegmentConfig, manifest: Manifest, train_files: Sequence[str], eval_files: Sequence[str]
) -> tuple[training.DatasetFunction, tf.data.Dataset]:
    if manifest.label_schema != config.label_schema:
        raise ValueError(f"label_schema is {config.label_schema!r}, but the shards hold {manifest.label_schema!r}")
    for split, files, num_needed in (("train", train_files, config.global_batch_size), ("eval", eval_files, 1)):
        shard_checks.check_split(split, files, manifest, sensors=config.sensors, with_label=True, num_needed=num_needed)
    # Only the sensors of the task are decoded: Sentinel-2 is most of the bytes, and a flood task does not look at it.
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
    eval_set = input_pipeline.eval_dataset(
        eval_files,
        num_bands=num_bands,
        with_label=True,
        batch_size=config.global_batch_size,
        reading=config.input,
    )
    return lambda first_step: train_set(first_step=first_step), eval_set


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
