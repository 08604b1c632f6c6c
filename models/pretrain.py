"""Contrastive pretraining: pairs -> one encoder per sensor, as a published SavedModel.

Input: shards of pairs and their manifest. Output: a SavedModel with `embed_s1` and `embed_s2`, TensorBoard logs, metrics.
Called by the pretrain Trainer of `components`; runs without TFX.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from models import augment, export, input_pipeline, training
from models.config import PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import DualEncoder, build_dual_encoder, with_dual_precision
from models.encoders import build_encoder
from models.health import retrieval
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

    Returns:
        `train_loss` (mean of the last steps) and the metrics of `evaluate`.

    Raises:
        ValueError: fewer train examples than a global batch, no eval example, a band that cannot be normalized, uneven parts.
        training.NonFiniteLossError: the loss became NaN or infinite.
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
        )
    # Published in float32 whatever it was trained in: half precision is emulated, slowly, on many serving CPUs. Evaluated
    # after the change, so that the metrics are those of the published model.
    dual_encoder = with_dual_precision(dual_encoder, "float32")
    metrics = {"train_loss": train_loss, **evaluate(dual_encoder, objective, eval_set)}
    training.write_metrics(log_dir, config.num_steps, metrics)
    export.export_encoder(dual_encoder, output_dir, config=config, manifest=manifest, metrics=metrics)
    return metrics


def evaluate(dual_encoder: DualEncoder, objective: Objective, dataset: tf.data.Dataset) -> dict[str, float]:
    """Loss and retrieval on held-out pairs.

    Args:
        dual_encoder: what is evaluated.
        objective: whose loss.
        dataset: batches of both sensors and of the objective's views.

    Returns:
        `eval_loss`: mean over the batches, each pair weighing the same; a short last batch has fewer negatives, so compare
        losses of one objective, data set and batch size only. `recall_at_1/s1_to_s2` and back, likewise 5 and 10: share of
        patches, 0-1, whose own partner is among the nearest in the other sensor, of all `num_eval_pairs`; chance where an
        objective does not look at both sensors.
    """
    embeddings: dict[str, list[np.ndarray]] = {"s1": [], "s2": []}
    total_loss = 0.0
    model = ContrastiveModel(dual_encoder, objective)

    @tf.function(reduce_retracing=True)
    def predict(batch: Batch) -> tuple[Batch, tf.Tensor]:
        outputs = model.encode(batch, training=False)
        # Retrieval is between the images as they are, whichever views the objective looks at.
        images: Batch = {
            sensor: outputs[sensor] if sensor in outputs else dual_encoder.embed(sensor, batch[sensor])
            for sensor in SENSORS
        }
        return images, model.pair_losses(outputs)

    for batch in dataset:
        batch_embeddings, losses = predict(batch)
        total_loss += float(tf.reduce_sum(losses))
        for sensor in SENSORS:
            embeddings[sensor].append(batch_embeddings[sensor].numpy())
    s1, s2 = (np.concatenate(embeddings[sensor]) for sensor in SENSORS)
    return {
        "eval_loss": total_loss / len(s1),
        **retrieval.recall_metrics(retrieval.cross_modal_ranks({"s1": s1, "s2": s2})),
        "num_eval_pairs": float(len(s1)),
    }


def _make_datasets(
    config: PretrainConfig,
    views: Sequence[str],
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    all_bands: dict[Sensor, int] = {"s1": len(manifest.s1_bands), "s2": len(manifest.s2_bands)}
    with_location = config.min_negative_km > 0

    def train_views(batch: Batch, seed: tf.Tensor) -> Batch:
        batch = break_pairs(batch, seed) if config.objective == "shuffled" else batch
        return make_views(batch, views, augment.random_symmetry, seed)

    train_set = input_pipeline.train_dataset(
        train_files,
        # A sensor that the objective does not look at is not even decoded.
        num_bands={sensor: num for sensor, num in all_bands.items() if sensor in map(sensor_of, views)},
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
        num_bands=all_bands,
        with_label=False,
        batch_size=config.global_batch_size,
        with_location=with_location,
        transform=lambda batch, seed: make_views(batch, (*SENSORS, *views), augment.random_symmetry, seed),
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
