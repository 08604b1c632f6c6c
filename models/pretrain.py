"""Contrastive pretraining: pairs -> one encoder per sensor, as a published SavedModel.

Input: shards of pairs and their manifest. Output: a SavedModel with `embed_s1` and
`embed_s2`, TensorBoard logs, metrics. Called by the pretrain Trainer of `components`;
runs without TFX.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS, Sensor
from beam_jobs.contracts.manifest import Manifest
from models import input_pipeline
from models.config import PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import DualEncoder, build_dual_encoder, with_dual_precision
from models.encoders import build_encoder
from models.health.monitor import EvalPairs, HealthLog, HealthMonitor
from models.objectives.objective import Objective, sensor_of
from models.objectives.registry import make_objective
from models.optimization.optimizers import make_optimizer
from models.published import export, warm_start
from models.reading import shard_checks
from models.training import training
from models.training.checkpoints import remove_checkpoints
from models.training.distribution import check_divisible, get_strategy, is_chief
from models.training.step_log import ProgressCallback
from models.training.steps import Batch, TwoStageLoss
from models.views import eval_views, train_views


def run_pretraining(
    config: PretrainConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
    output_dir: str,
    log_dir: str,
    on_step: ProgressCallback | None = None,
    warm_start_dir: str | None = None,
    checkpoint_dir: str | None = None,
    is_served: bool = True,
) -> dict[str, float]:
    """Trains both encoders from the own checkpoint, else from `warm_start_dir`, else from scratch; evaluates, publishes.

    Args:
        config: what to train and how.
        manifest: of the shards: bands and the statistics of the train split, which go
            into the graph.
        train_files: gzip TFRecords of the train split.
        eval_files: gzip TFRecords of the eval split.
        output_dir: where the SavedModel is written.
        log_dir: where TensorBoard events are written.
        on_step: told of every step.
        warm_start_dir: SavedModel of an earlier pretraining, such as the last blessed
            encoder. Its normalization comes along.
        checkpoint_dir: see `training.train`; empty again when the encoder is published.
        is_served: see `export.export_encoder`.

    Returns:
        `train_loss` (mean of the last steps), the metrics of `evaluate` and of
        `Checkup.metrics`.

    Raises:
        ValueError: fewer train examples than a global batch, no eval example, shards
            that are not the manifest's, a band that cannot be normalized, uneven parts,
            a warm start or a checkpoint of another architecture.
        FileNotFoundError: `warm_start_dir` holds no encoder.
        NonFiniteLossError, NoValidPairError: see `training.train`.
        UnhealthyTrainingError: the embeddings collapsed, or an alarm is to end the run;
            nothing is published.
    """
    strategy = get_strategy()  # Workers must know each other before TensorFlow starts.
    keras.utils.set_random_seed(
        config.seed
    )  # Before the datasets, too: their seeds are combined with the global one.
    num_micro_batches = _check_sizes(config, strategy)
    _check_data(config, manifest, train_files, eval_files)
    with strategy.scope():
        dual_encoder = build_model(config, manifest, warm_start_dir)
        objective = make_objective(config, dual_encoder.encoders["s1"].output["features"].shape[-1])
        model = ContrastiveModel(dual_encoder, objective)
    train_set, eval_set = _make_datasets(config, objective.views, manifest, train_files, eval_files)
    monitor = HealthMonitor(
        config,
        dual_encoder,
        sensors=tuple(model.encoders),
        pairs=EvalPairs(manifest=manifest, files=eval_files),
        log=HealthLog(folder=log_dir, is_writer=is_chief(strategy)),
        is_new=warm_start_dir is None,
    )
    train_loss = _train(
        config, model, num_micro_batches, train_set, log_dir, on_step, checkpoint_dir, monitor
    )
    export_encoder = _make_export(config, manifest, warm_start_dir, output_dir, is_served)
    metrics = _publish(
        config, dual_encoder, objective, eval_set, monitor, train_loss, log_dir, export_encoder
    )
    if is_chief(strategy):  # Not before: a kill during the export must not cost the training.
        remove_checkpoints(checkpoint_dir)
    return metrics


def build_model(
    config: PretrainConfig, manifest: Manifest, warm_start_dir: str | None
) -> DualEncoder:
    """A new dual encoder, or that of `warm_start_dir`.

    Raises:
        ValueError: the warm start has other bands or another architecture, or a band
            cannot be normalized.
        FileNotFoundError: `warm_start_dir` holds no encoder.
    """
    if warm_start_dir is None:
        encoders = {
            sensor: build_encoder(config.encoder, sensor, manifest, config.precision)
            for sensor in SENSORS
        }
        return build_dual_encoder(encoders, config.encoder.embedding_dim)
    encoders = warm_start.load_encoders(
        dict.fromkeys(SENSORS, warm_start_dir), config.encoder, manifest, config.precision
    )
    heads = warm_start.load_heads(warm_start_dir, config.encoder)
    return DualEncoder(encoders=encoders, heads=heads)


def _train(
    config: PretrainConfig,
    model: ContrastiveModel,
    num_micro_batches: int,
    dataset: training.DatasetFunction,
    log_dir: str,
    on_step: ProgressCallback | None,
    checkpoint_dir: str | None,
    monitor: HealthMonitor,
) -> float:
    """The train loss; NaN of the control without training, which checks the shards all the same."""
    if config.objective == "none":
        dataset(0)
        return math.nan
    strategy = get_strategy()
    with strategy.scope():
        optimizer = make_optimizer(config.optimizer, config.num_steps, config.precision)
    return training.train(
        strategy=strategy,
        model=model,
        compute_loss=TwoStageLoss(
            encode=functools.partial(model.encode, training=True),
            loss=model.replica_scalars,
            num_micro_batches=num_micro_batches,
        ),
        optimizer=optimizer,
        dataset=dataset,
        num_steps=config.num_steps,
        log_dir=log_dir,
        on_step=on_step,
        checkpoint_dir=checkpoint_dir,
        checkpoint_every=config.checkpoint_every,
        check_every=config.health.check_every,
        check=monitor.check,
    )


def evaluate(model: ContrastiveModel, dataset: tf.data.Dataset) -> dict[str, float]:
    """Loss on held-out pairs.

    Args:
        model: what is evaluated.
        dataset: batches of the objective's views.

    Returns:
        `eval_loss`: mean over the batches, each pair weighing the same; a short last
            batch has fewer negatives, so compare
        losses of one objective, data set and batch size only. `num_eval_pairs`: what it
        is the mean of.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def sum_losses(batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        losses = model.pair_losses(model.encode(batch, training=False))
        return tf.reduce_sum(losses), tf.size(losses)

    total_loss, num_pairs = 0.0, 0
    for batch in dataset:
        batch_loss, batch_size = sum_losses(batch)
        total_loss += float(batch_loss)
        num_pairs += int(batch_size)
    return {"eval_loss": total_loss / num_pairs, "num_eval_pairs": float(num_pairs)}


def _make_export(
    config: PretrainConfig,
    manifest: Manifest,
    warm_start_dir: str | None,
    output_dir: str,
    is_served: bool,
) -> Callable[..., None]:
    """`export.export_encoder` of this training; what it found is still to be said."""
    starts = {} if warm_start_dir is None else dict.fromkeys(SENSORS, warm_start_dir)
    return functools.partial(
        export.export_encoder,
        output_dir=output_dir,
        config=config,
        manifest=manifest,
        started_from=starts,
        is_served=is_served,
    )


def _publish(
    config: PretrainConfig,
    dual_encoder: DualEncoder,
    objective: Objective,
    eval_set: tf.data.Dataset,
    monitor: HealthMonitor,
    train_loss: float,
    log_dir: str,
    export_encoder: Callable[..., None],
) -> dict[str, float]:
    # Published in float32 whatever it was trained in: half precision is emulated,
    # slowly, on many serving CPUs. Evaluated after the change, so that the metrics are
    # those of the published model.
    dual_encoder = with_dual_precision(dual_encoder, "float32")
    conclusion = monitor.conclude(dual_encoder, train_loss)
    scores = evaluate(ContrastiveModel(dual_encoder, objective), eval_set)
    metrics = {"train_loss": train_loss, **scores, **conclusion.metrics}
    if is_chief(get_strategy()):
        training.write_metrics(log_dir, config.num_steps, metrics)
        export_encoder(
            dual_encoder,
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
) -> tuple[training.DatasetFunction, tf.data.Dataset]:
    all_bands: dict[Sensor, int] = {"s1": len(manifest.s1_bands), "s2": len(manifest.s2_bands)}
    # A sensor that the objective does not look at is not even decoded.
    num_bands = {
        sensor: num for sensor, num in all_bands.items() if sensor in map(sensor_of, views)
    }
    with_location = config.min_negative_km > 0

    train_set = functools.partial(
        input_pipeline.train_dataset,
        train_files,
        num_examples=manifest.num_examples["train"],
        num_bands=num_bands,
        with_label=False,
        batch_size=config.global_batch_size,
        shuffle_buffer=config.shuffle_buffer,
        reading=config.input,
        seed=config.seed,
        with_weight=config.use_weights,
        with_location=with_location,
        with_patch_id=True,
        transform=train_views(config, views, manifest),
    )
    # The batch size of training: a contrastive loss is comparable only among equal
    # numbers of negatives. Pairs are whole whatever the objective: what was learned
    # from broken ones must not be found in these.
    eval_set = input_pipeline.eval_dataset(
        eval_files,
        num_bands=num_bands,
        with_label=False,
        batch_size=config.global_batch_size,
        with_location=with_location,
        reading=config.input,
        transform=eval_views(config, views, manifest),
    )
    return lambda first_step: train_set(first_step=first_step), eval_set.take(
        config.num_eval_batches
    )


def _check_data(
    config: PretrainConfig,
    manifest: Manifest,
    train_files: Sequence[str],
    eval_files: Sequence[str],
) -> None:
    shard_checks.check_patch_size(manifest, config.encoder)
    shard_checks.check_split(
        "train", train_files, manifest, sensors=SENSORS, num_needed=config.global_batch_size
    )
    shard_checks.check_split("eval", eval_files, manifest, sensors=SENSORS)


def _check_sizes(config: PretrainConfig, strategy: tf.distribute.Strategy) -> int:
    """The number of micro-batches of each replica.

    Raises:
        ValueError: replicas, micro-batches or chunks of logits cannot share the batch
            evenly.
    """
    check_divisible(config.global_batch_size, strategy)
    per_replica = config.global_batch_size // strategy.num_replicas_in_sync
    for name, size in (
        ("micro_batch_size", config.micro_batch_size),
        ("logits_chunk_size", config.logits_chunk_size),
    ):
        if size is not None and per_replica % size:
            raise ValueError(
                f"{name} must divide the {per_replica} pairs of each replica, got {size}"
            )
    return 1 if config.micro_batch_size is None else per_replica // config.micro_batch_size
