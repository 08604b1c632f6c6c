"""Contrastive pretraining: pairs -> one encoder per sensor, as a published SavedModel.

Input: shards of pairs and their manifest. Output: a SavedModel with `embed_s1` and `embed_s2`, TensorBoard logs, metrics.
Called by the pretrain Trainer of `components`; runs without TFX.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from models import augment, export, input_pipeline, training
from models.config import PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import DualEncoder, build_dual_encoder, with_dual_precision
from models.encoders import build_encoder
from models.health.monitor import AlarmCallback, HealthMonitor, log_alarm
from models.objectives.objective import Objective, sensor_of
from models.objectives.registry import make_objective
from models.steps import Batch, TwoStageLoss
from models.views import break_pairs, make_views


def run_pretraining(
    config: PretrainConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    output_dir: str,
    log_dir: str,
    on_step: training.ProgressCallback | None = None,
    on_alarm: AlarmCallback = log_alarm,
) -> dict[str, float]:
    """Trains both encoders, evaluates and publishes them.

    Args:
        config: what to train and how.
        manifest: of the shards: bands and the statistics of the train split, which go into the graph.
        train_files: gzip TFRecords of the train split.
        eval_files: gzip TFRecords of the eval split.
        output_dir: where the SavedModel is written.
        log_dir: where TensorBoard events are written.
        on_step: told of every step.
        on_alarm: told of what the health checks find wrong.

    Returns:
        `train_loss` (mean of the last steps), the metrics of `evaluate` and of `Checkup.metrics`.

    Raises:
        ValueError: fewer train examples than a global batch, no eval example, a band that cannot be normalized, uneven parts.
        training.NonFiniteLossError: the loss became NaN or infinite.
        UnhealthyTrainingError: the embeddings collapsed, or an alarm is to end the run; nothing is published.
    """
    # Before the datasets, too: their seeds are combined with TensorFlow's global one.
    keras.utils.set_random_seed(config.seed)
    strategy = training.get_strategy()
    num_micro_batches = _check_sizes(config, strategy)
    with strategy.scope():
        encoders = {sensor: build_encoder(config.encoder, sensor, manifest, config.precision) for sensor in SENSORS}
        dual_encoder = build_dual_encoder(encoders, config.encoder.embedding_dim)
        objective = make_objective(config, encoders["s1"].output["features"].shape[-1])
        model = ContrastiveModel(dual_encoder, objective)
        optimizer = training.make_optimizer(config.optimizer, config.num_steps)
    train_set, eval_set = _make_datasets(config, objective.views, manifest, train_files, eval_files)
    monitor = HealthMonitor(config, dual_encoder, tuple(model.encoders), manifest, eval_files, log_dir, on_alarm)
    train_loss = math.nan  # The control without training reads and checks the shards all the same.
    if config.objective != "none":
        train_loss = training.train(
            strategy=strategy,
            model=model,
            compute_loss=TwoStageLoss(
                encode=functools.partial(model.encode, training=True),
                loss=model.replica_scalars,
                num_micro_batches=num_micro_batches,
            ),
            optimizer=optimizer,
            dataset=train_set,
            num_steps=config.num_steps,
            log_dir=log_dir,
            on_step=on_step,
            check_every=config.health.check_every,
            check=monitor.check,
        )
    return _publish(config, manifest, dual_encoder, objective, eval_set, monitor, train_loss, output_dir, log_dir)


def evaluate(model: ContrastiveModel, dataset: tf.data.Dataset) -> dict[str, float]:
    """Loss on held-out pairs.

    Args:
        model: what is evaluated.
        dataset: batches of the objective's views.

    Returns:
        `eval_loss`: mean over the batches, each pair weighing the same; a short last batch has fewer negatives, so compare
        losses of one objective, data set and batch size only. `num_eval_pairs`: what it is the mean of.
    """

    @tf.function(reduce_retracing=True)
    def sum_losses(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        losses = model.pair_losses(model.encode(batch, training=False))
        return tf.reduce_sum(losses), tf.size(losses)

    total_loss, num_pairs = 0.0, 0
    for batch in dataset:
        batch_loss, batch_size = sum_losses(batch)
        total_loss += float(batch_loss)
        num_pairs += int(batch_size)
    return {"eval_loss": total_loss / num_pairs, "num_eval_pairs": float(num_pairs)}


def _publish(
    config: PretrainConfig,
    manifest: Manifest,
    dual_encoder: DualEncoder,
    objective: Objective,
    eval_set: tf.data.Dataset,
    monitor: HealthMonitor,
    train_loss: float,
    output_dir: str,
    log_dir: str,
) -> dict[str, float]:
    # Published in float32 whatever it was trained in: half precision is emulated, slowly, on many serving CPUs. Evaluated
    # after the change, so that the metrics are those of the published model.
    dual_encoder = with_dual_precision(dual_encoder, "float32")
    conclusion = monitor.conclude(dual_encoder, train_loss)
    scores = evaluate(ContrastiveModel(dual_encoder, objective), eval_set)
    metrics = {"train_loss": train_loss, **scores, **conclusion.metrics}
    training.write_metrics(log_dir, config.num_steps, metrics)
    export.export_encoder(
        dual_encoder,
        output_dir,
        config=config,
        manifest=manifest,
        metrics=metrics,
        health={"alarms": list(conclusion.alarms), "not_measured": conclusion.not_measured},
        embedding_map=conclusion.picture,
    )
    return metrics


def _make_datasets(
    config: PretrainConfig,
    views: Sequence[str],
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    all_bands: dict[Sensor, int] = {"s1": len(manifest.s1_bands), "s2": len(manifest.s2_bands)}
    # A sensor that the objective does not look at is not even decoded.
    num_bands = {sensor: num for sensor, num in all_bands.items() if sensor in map(sensor_of, views)}
    with_location = config.min_negative_km > 0

    def train_views(batch: Batch, seed: tf.Tensor) -> Batch:
        batch = break_pairs(batch, seed) if config.objective == "shuffled" else batch
        return make_views(batch, views, augment.random_symmetry, seed)

    train_set = input_pipeline.train_dataset(
        train_files,
        num_bands=num_bands,
        with_label=False,
        batch_size=config.global_batch_size,
        shuffle_buffer=config.shuffle_buffer,
        augment=config.augment,
        seed=config.seed,
        with_weight=config.use_weights,
        with_location=with_location,
        transform=train_views,
    )
    # The batch size of training: a contrastive loss is comparable only among equal numbers of negatives. Pairs are whole
    # whatever the objective: what was learned from broken ones must not be found in these.
    eval_set = input_pipeline.eval_dataset(
        eval_files,
        num_bands=num_bands,
        with_label=False,
        batch_size=config.global_batch_size,
        with_location=with_location,
        transform=lambda batch, seed: make_views(batch, views, augment.random_symmetry, seed),
    )
    return train_set, eval_set.take(config.num_eval_batches)


def _check_sizes(config: PretrainConfig, strategy: tf.distribute.Strategy) -> int:
    """The number of micro-batches of each replica.

    Raises:
        ValueError: replicas, micro-batches or chunks of logits cannot share the batch evenly.
    """
    training.check_divisible(config.global_batch_size, strategy)
    per_replica = config.global_batch_size // strategy.num_replicas_in_sync
    for name, size in (("micro_batch_size", config.micro_batch_size), ("logits_chunk_size", config.logits_chunk_size)):
        if size is not None and per_replica % size:
            raise ValueError(f"{name} must divide the {per_replica} pairs of each replica, got {size}")
    return 1 if config.micro_batch_size is None else per_replica // config.micro_batch_size
