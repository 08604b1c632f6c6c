"""Segmentation: labelled patches and pretrained weights -> a published segmenter.

Input: labelled shards; a SavedModel of `pretrain.py`, a student of `distillation`, or
nothing. Output: a SavedModel with the signatures `serving_default` and
`serve_examples`, TensorBoard logs, metrics. The order of events is that of
`training/scaffold.py`. Runs without TFX.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.labels import IGNORE
from beam_jobs.contracts.manifest import Manifest
from models import input_pipeline
from models.augmentation.augmenter import AugmentFunction, make_augmenter
from models.augmentation.sensor_dropout import drop_sensor
from models.encoders import build_encoder, can_mirror, with_border
from models.optimization import regimes
from models.optimization.optimizers import make_optimizer
from models.pixel_losses.segment_loss import SegmentLoss, make_segment_loss
from models.published import export, warm_start
from models.published.card import Provenance
from models.published.precision import choose
from models.reading import shard_checks
from models.reading.epochs import EpochPlan
from models.scores.calibration import at_best_threshold
from models.scores.patch_scores import PatchScores
from models.scores.scoring import SplitScorer, score_patches, tune_threshold
from models.scores.summary import summarize
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter, with_segmenter_precision
from models.training import scaffold, training
from models.training.distribution import check_divisible
from models.training.evaluations import EvalRule, Evaluations
from models.training.scaffold import Folders, Shards, Trained
from models.training.step_log import ProgressCallback
from models.training.steps import Batch, Scalars


@dataclass(frozen=True, kw_only=True)
class SegmenterSources:
    """Published models that a segmenter's weights start from.

    Attributes:
        encoder: SavedModel of `run_pretraining`; None = none. `build_segmenter` says
            which encoder each sensor gets.
        student: folder that `run_distillation` wrote. All of its weights are taken, and
            `encoder` is not used. None = none.
    """

    encoder: str | None = None
    student: str | None = None


DECIDING_SCORE = "mean_iou"
"""Score of `summarize` by which `keep: best` chooses."""

NEW_WEIGHTS = SegmenterSources()
"""Nothing published: only the encoders that the config names, else new weights."""


def run_segmentation(
    config: SegmentConfig,
    shards: Shards,
    folders: Folders,
    *,
    sources: SegmenterSources = NEW_WEIGHTS,
    name: str = "segmenter",
    on_step: ProgressCallback | None = None,
) -> dict[str, float]:
    """Train a segmenter, score it on the eval split and publish it.

    The weights start from the checkpoint of an earlier attempt, else from `sources`,
    else they are new. `config.keep` says which step's weights are published.

    Args:
        config: what to train and how.
        shards: labelled patches: at least one global batch to train, one to evaluate.
        folders: where to write.
        sources: published models to start from.
        name: under which the model is served.
        on_step: called after every step.

    Returns:
        `train_loss` (mean of the last steps), what `summarize` returns for the eval
        split, and `best_step` under `keep: best`.

    Raises:
        ValueError: shards without labels or not the manifest's, too few examples, a
            class without pixels to be balanced, no labelled pixel to choose a step by,
            or what `build_segmenter` refuses.
        NonFiniteLossError, CheckpointMismatchError: see `training.train`.
    """
    return scaffold.run(SegmentRecipe(config, shards, sources, name), folders, on_step)


def train_segmenter(config: SegmentConfig, shards: Shards, folders: Folders) -> Trained[Segmenter]:
    """Train a segmenter that is neither scored nor published; see `run_segmentation`.

    Its encoders are new, or those that `config.encoder_paths` names. `config.keep` says
    which step's weights it has.
    """
    return scaffold.fit(SegmentRecipe(config, shards), folders)


class SegmentRecipe(scaffold.Recipe[Segmenter]):
    """The stages of a segmentation; see `run_segmentation` for the arguments."""

    def __init__(
        self,
        config: SegmentConfig,
        shards: Shards,
        sources: SegmenterSources = NEW_WEIGHTS,
        name: str = "segmenter",
    ) -> None:
        self.config, self.seed, self.shards = config, config.seed, shards
        self.sources, self.name = sources, name
        self._published: Segmenter | None = None
        self._scorer: SplitScorer | None = None
        self._evaluations: Evaluations | None = None

    def check(self, strategy: tf.distribute.Strategy) -> None:
        """Refuse shards that do not fit; see the base class."""
        config, manifest = self.config, self.shards.manifest
        check_divisible(config.global_batch_size, strategy)
        if manifest.label_schema != config.label_schema:
            raise ValueError(
                f"label_schema is {config.label_schema!r}, but the shards hold "
                f"{manifest.label_schema!r}"
            )
        if manifest.schema != config.schema:
            raise ValueError(
                f"label_classes are {', '.join(config.schema.class_names)}, but the shards hold "
                f"{manifest.label_classes}: build the labels again"
            )
        if config.keep == "best":
            _check_choosable(self.shards)
        # Both splits before the first step: a training that cannot be scored is lost.
        for split, files, num_needed in (
            ("train", self.shards.train, config.global_batch_size),
            ("eval", self.shards.eval, 1),
        ):
            shard_checks.check_split(
                split,
                files,
                manifest,
                sensors=config.sensors,
                with_label=True,
                num_needed=num_needed,
            )

    def build(self, strategy: tf.distribute.Strategy) -> training.Fit:
        """Make loss, segmenter, optimizer and data; see the base class."""
        config, manifest = self.config, self.shards.manifest
        class_names = config.schema.class_names
        num_pixels = manifest.num_pixels_per_class.get("train", {})
        loss = make_segment_loss(config.loss, class_names, num_pixels)
        with strategy.scope():
            model = build_segmenter(config, manifest, self.sources.encoder, self.sources.student)
            paces = regimes.make_paces(model, config)
            optimizer = make_optimizer(config.optimizer, config.num_steps, config.precision, paces)
        self._model = model
        if config.evaluates_every:
            self._evaluations = Evaluations(model, self._measure, _eval_rule(config))
        return training.Fit(
            model=model,
            compute_loss=functools.partial(replica_loss, config, model, loss),
            evaluations=self._evaluations,
            optimizer=optimizer,
            dataset=_make_train_set(config, self.shards),
            num_steps=config.num_steps,
            checkpoint_every=config.checkpoint_every,
        )

    def finish(self) -> Segmenter:
        """Return the trained segmenter in float32, no layer frozen."""
        return finish_segmenter(self._as_published())

    def evaluate(
        self, model: Segmenter, train_loss: float, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the scores on the eval split; choose the threshold if configured."""
        del train_loss
        self._scores = self._scorer_of(model).score(self.shards.eval)
        if self.config.tune_threshold:
            # In the scope, the copies of the variable on all replicas are assigned.
            with strategy.scope():
                self._scores = tune_threshold(model, self._scores)
        found = self._evaluations
        chosen = {"best_step": float(found.kept_step)} if found and found.best_weights else {}
        self._served = choose(model, self.config.export.precision, self._scores, self._score_anew)
        lost = self._served.iou_loss
        cost = {} if math.isnan(lost) else {"export_iou_loss": lost}
        return {**summarize(self._served.scores), **chosen, **cost}

    def export(self, model: Segmenter, output_dir: str, metrics: Mapping[str, float]) -> None:
        """Write the segmenter with its scores."""
        student = self.sources.student
        export.export_segmenter(
            model,
            output_dir,
            provenance=Provenance(
                name=self.name,
                config=self.config,
                manifest=self.shards.manifest,
                metrics=metrics,
                started_from=dict.fromkeys(self.config.sensors, student)
                if student
                else encoder_starts(self.config, self.sources.encoder),
                evaluations=None if self._evaluations is None else self._evaluations.describe(),
            ),
            scores=self._served.scores,
            precision=self._served.precision,
        )

    def _score_anew(self, model: Segmenter) -> PatchScores:
        """Return the scores of another segmenter on the eval split."""
        return score_patches(
            model,
            self.shards.eval,
            self.config.schema.class_names,
            batch_size=self.config.global_batch_size,
        )

    def _measure(self) -> dict[str, float]:
        """Return the scores that the model would be published with now."""
        scores = self._scorer_of(self._as_published()).score(self.shards.eval)
        # Only the counts are cut anew: the model in training keeps its threshold.
        return summarize(at_best_threshold(scores) if self.config.tune_threshold else scores)

    def _as_published(self) -> Segmenter:
        """Return the model in float32, as it is now: itself, or always one copy."""
        if self._published is None:
            self._published = with_segmenter_precision(self._model, "float32")
        elif self._published is not self._model:
            self._published.set_weights(self._model.get_weights())
        return self._published

    def _scorer_of(self, model: Segmenter) -> SplitScorer:
        """Return the scorer of a model, the same in each call: it is traced once."""
        if self._scorer is None or self._scorer.model is not model:
            self._scorer = SplitScorer(
                model, self.config.schema.class_names, batch_size=self.config.global_batch_size
            )
        return self._scorer


def _check_choosable(shards: Shards) -> None:
    """Refuse an eval split that cannot tell which step is the best.

    Raises:
        ValueError: it is empty, or none of its pixels has a label.
    """
    num_pixels = shards.manifest.num_pixels_per_class.get("eval", {})
    num_labelled = sum(count for label, count in num_pixels.items() if int(label) != IGNORE)
    if shards.eval and num_labelled:
        return
    what = "no labelled pixel" if shards.eval else "no file"
    raise ValueError(
        f"keep: best needs labelled patches in the eval split, got {what}: build the labels with a "
        "larger split.eval_fraction or another split.seed, or set segment.keep to last"
    )


def _eval_rule(config: SegmentConfig) -> EvalRule:
    return EvalRule(
        score=DECIDING_SCORE,
        every=config.evaluates_every,
        keeps_best=config.keep == "best",
        patience=config.patience,
        # While the encoder still waits, a plateau says nothing about what is to come.
        patient_after=math.ceil(config.unfreeze_after * config.num_steps),
    )


def finish_segmenter(model: Segmenter) -> Segmenter:
    """Return a trained segmenter as it is published: float32, no layer frozen."""
    # Do not save the frozen state. A later training decides itself which layers to
    # freeze.
    regimes.set_encoders_trainable(model, True)
    return with_segmenter_precision(model, "float32")


def build_segmenter(
    config: SegmentConfig,
    manifest: Manifest,
    encoder_dir: str | None,
    student_dir: str | None = None,
) -> Segmenter:
    """Return a segmenter with pretrained or new encoders, or a distilled student.

    A student of `student_dir` is taken whole. Otherwise each sensor's encoder comes
    from `config.encoder_paths`, else from `encoder_dir`, each with its own
    normalization. Without either it is new, with the statistics of `manifest`. Under
    the regime "scratch" all encoders are new. The regime says which variables train.

    Raises:
        ValueError: a pretrained encoder or a student is of another sensor, other bands
            or another architecture, or the stride does not divide the patch size of
            `manifest`.
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
    """Return a segmenter of pretrained or new encoders and a new head."""
    starts = encoder_starts(config, encoder_dir)
    pretrained = warm_start.load_encoders(starts, config.encoder, manifest, config.precision)
    encoders = {
        sensor: pretrained.get(sensor)
        or build_encoder(config.encoder, sensor, manifest, config.precision)
        for sensor in config.sensors
    }
    # A frozen encoder stays as it was pretrained.
    if config.trains_encoder and can_mirror(config.encoder.backbone):
        encoders = {sensor: with_border(each, config.border) for sensor, each in encoders.items()}
    return Segmenter(
        encoders=encoders,
        num_classes=config.schema.num_classes,
        decoder_channels=config.decoder_channels,
        head=config.head,
        border=config.border,
        precision=config.precision,
    )


def encoder_starts(config: SegmentConfig, encoder_dir: str | None) -> dict[Sensor, str]:
    """Return the path of the pretrained encoder of each sensor that has one."""
    if config.regime == "scratch":
        return {}
    paths = {sensor: config.encoder_paths.get(sensor) or encoder_dir for sensor in config.sensors}
    return {sensor: path for sensor, path in paths.items() if path}


def replica_loss(
    config: SegmentConfig, model: Segmenter, loss: SegmentLoss, batch: Batch
) -> Scalars:
    """Return this replica's part of the loss over all labelled pixels of the batch."""
    outputs = model({sensor: batch[sensor] for sensor in config.sensors}, training=True)
    label = mask_label(batch["label"], outputs["valid_mask"])
    weight = batch["weight"] if config.use_weights else tf.ones(tf.shape(label)[:1])
    return loss(label, outputs["logits"], weight)


def mask_label(label: tf.Tensor, valid_mask: tf.Tensor) -> tf.Tensor:
    """Return `label` as int32, 255 (ignore) where no input sensor has data.

    Args:
        label: uint8 [B, H, W].
        valid_mask: float32 [B, H, W, 1], above 0 where at least one sensor has data.
    """
    return tf.where(valid_mask[..., 0] > 0, tf.cast(label, tf.int32), IGNORE)


def _make_train_set(config: SegmentConfig, shards: Shards) -> training.DatasetFunction:
    """Return the batches of the train split from any step on."""
    manifest = shards.manifest
    # Decode only the sensors of the task: Sentinel-2 is most of the bytes, and a radar
    # task does not use it.
    num_bands = {sensor: len(manifest.bands(sensor)) for sensor in config.sensors}
    train_set = functools.partial(
        input_pipeline.train_dataset,
        shards.train,
        input_pipeline.Features(
            num_bands=num_bands,
            with_label=True,
            with_weight=config.use_weights,
            with_patch_id=True,
        ),
        EpochPlan(
            num_examples=manifest.num_examples["train"],
            batch_size=config.global_batch_size,
            shuffle_buffer=config.shuffle_buffer,
            seed=config.seed,
        ),
        reading=config.input,
        transform=_make_transform(config, manifest),
    )
    return lambda first_step: train_set(first_step=first_step)


def _make_transform(config: SegmentConfig, manifest: Manifest) -> AugmentFunction:
    """Return what changes each training batch: augmentation, then modality dropout."""
    augment = make_augmenter(config.augment, manifest)
    if not config.modality_dropout:
        return augment

    def transform(batch: Batch, seed: tf.Tensor) -> Batch:
        seeds = tf.unstack(tf.random.split(seed, 2))
        return drop_sensor(augment(batch, seeds[0]), config.modality_dropout, seeds[1])

    return transform
