"""Contrastive pretraining: pairs -> one encoder per sensor, as a published SavedModel.

Input: shards of pairs and their manifest. Output: a SavedModel with `embed_s1` and `embed_s2`, TensorBoard logs, metrics.
Called by the pretrain Trainer of `components`; runs without TFX.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from models import export, input_pipeline, training
from models.config import PretrainConfig
from models.dual_encoder import DualEncoder, build_dual_encoder, with_dual_precision
from models.encoders import build_encoder
from models.losses import NTXentLoss, global_weight


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
        ValueError: fewer train examples than a global batch, an empty eval split, a band that cannot be normalized, or a
            global batch that the replicas cannot share evenly.
        training.NonFiniteLossError: the loss became NaN or infinite.
    """
    # Before the datasets, too: their seeds are combined with TensorFlow's global one.
    keras.utils.set_random_seed(config.seed)
    strategy = training.get_strategy()
    training.check_divisible(config.global_batch_size, strategy)
    train_set, eval_set = _make_datasets(config, manifest, train_files, eval_files)
    with strategy.scope():
        encoders = {sensor: build_encoder(config.encoder, sensor, manifest, config.precision) for sensor in SENSORS}
        model = build_dual_encoder(encoders, config.encoder.embedding_dim)
        optimizer = training.make_optimizer(config.optimizer, config.num_steps)
    loss = NTXentLoss(config.temperature)

    def compute_loss(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        embeddings = model({sensor: batch[sensor] for sensor in SENSORS}, training=True)
        weight = global_weight(batch["weight"], tf.ones_like(batch["weight"])) if config.use_weights else None
        return loss(embeddings["s1"], embeddings["s2"], sample_weight=weight)

    train_loss = training.train(
        strategy=strategy,
        model=model,
        compute_loss=compute_loss,
        optimizer=optimizer,
        dataset=train_set,
        num_steps=config.num_steps,
        log_dir=log_dir,
        on_step=on_step,
    )
    # Published in float32 whatever it was trained in: half precision is emulated, slowly, on many serving CPUs. Evaluated
    # after the change, so that the metrics are those of the published model.
    model = with_dual_precision(model, "float32")
    metrics = {"train_loss": train_loss, **evaluate(model, eval_set, loss)}
    training.write_metrics(log_dir, config.num_steps, metrics)
    export.export_encoder(model, output_dir, config=config, manifest=manifest, metrics=metrics)
    return metrics


def evaluate(model: DualEncoder, dataset: tf.data.Dataset, loss: NTXentLoss) -> dict[str, float]:
    """Loss and retrieval on held-out pairs.

    Returns:
        `eval_loss`: mean over the batches, each pair weighing the same; a short last batch has fewer negatives, so compare
        losses of one data set and batch size only. `recall_at_1_s1_to_s2` and back: share of patches, 0-1, whose nearest
        neighbour in the other sensor among all `num_eval_pairs` is their own partner.
    """
    embeddings: dict[str, list[np.ndarray]] = {"s1": [], "s2": []}
    total_loss = 0.0
    predict = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    for batch in dataset:
        batch_embeddings = predict(batch)
        # `call`, not the object: the reduction of the object divides by the replicas, and evaluation runs on one.
        total_loss += float(tf.reduce_sum(loss.call(batch_embeddings["s1"], batch_embeddings["s2"])))
        for sensor in SENSORS:
            embeddings[sensor].append(batch_embeddings[sensor].numpy())
    s1, s2 = (np.concatenate(embeddings[sensor]) for sensor in SENSORS)
    return {
        "eval_loss": total_loss / len(s1),
        "recall_at_1_s1_to_s2": recall_at_1(s1, s2),
        "recall_at_1_s2_to_s1": recall_at_1(s2, s1),
        "num_eval_pairs": float(len(s1)),
    }


def recall_at_1(queries: np.ndarray, keys: np.ndarray) -> float:
    """Share of rows of `queries` [N, E] whose most similar row of `keys` [N, E] has the same number, 0-1.

    A tie counts as found only for the lowest row, so a collapsed encoder scores 1 / N, not 1.
    """
    return float(np.mean(np.argmax(queries @ keys.T, axis=1) == np.arange(len(queries))))


def _make_datasets(
    config: PretrainConfig, manifest: Manifest, train_files: Sequence[str], eval_files: Sequence[str]
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    num_bands: dict[Sensor, int] = {"s1": len(manifest.s1_bands), "s2": len(manifest.s2_bands)}
    train_set = input_pipeline.train_dataset(
        train_files,
        num_bands=num_bands,
        with_label=False,
        batch_size=config.global_batch_size,
        shuffle_buffer=config.shuffle_buffer,
        augment=config.augment,
        seed=config.seed,
        with_weight=config.use_weights,
    )
    # The batch size of training: a contrastive loss is comparable only among equal numbers of negatives.
    eval_set = input_pipeline.eval_dataset(
        eval_files, num_bands=num_bands, with_label=False, batch_size=config.global_batch_size
    )
    return train_set, eval_set.take(config.num_eval_batches)
