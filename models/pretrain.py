"""Contrastive pretraining: pairs -> one encoder per sensor, as a published SavedModel.

Input: shards of pairs. Output: a SavedModel with the signatures `embed_s1` and
`embed_s2`, TensorBoard logs, metrics. The order of events is that of
`training/scaffold.py`. Runs without TFX.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.manifest import Manifest
from models import input_pipeline
from models.config import PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import DualEncoder, build_dual_encoder, with_dual_precision
from models.encoders import build_encoder
from models.health.monitor import EvalPairs, HealthLog, HealthMonitor
from models.objectives.objective import sensor_of
from models.objectives.registry import make_objective
from models.optimization.optimizers import make_optimizer
from models.published import export, warm_start
from models.published.card import Provenance
from models.reading import shard_checks
from models.reading.epochs import EpochPlan
from models.training import scaffold, training
from models.training.distribution import check_divisible, is_chief
from models.training.scaffold import Folders, Shards
from models.training.step_log import ProgressCallback
from models.training.steps import Batch, TwoStageLoss
from models.views import eval_views, train_views


def run_pretraining(
    config: PretrainConfig,
    shards: Shards,
    folders: Folders,
    *,
    warm_start_dir: str | None = None,
    is_served: bool = True,
    on_step: ProgressCallback | None = None,
) -> dict[str, float]:
    """Train both encoders, evaluate them and publish them as one SavedModel.

    The weights start from the checkpoint of an earlier attempt, else from
    `warm_start_dir`, else they are new.

    Args:
        config: what to train and how.
        shards: pairs. Both splits are read.
        folders: where to write.
        warm_start_dir: SavedModel of an earlier pretraining, such as the last blessed
            encoder. Its normalization is taken too.
        is_served: False leaves out the signatures; see `export.export_encoder`.
        on_step: called after every step.

    Returns:
        `train_loss` (mean of the last steps), the metrics of `evaluate` and of
        `Checkup.metrics`.

    Raises:
        ValueError: fewer train examples than a global batch, no eval example, shards
            that are not the manifest's, a band that cannot be normalized, replicas or
            parts that cannot share the batch evenly, or a warm start or checkpoint of
            another architecture.
        FileNotFoundError: `warm_start_dir` holds no encoder.
        NonFiniteLossError, NoValidPairError: see `training.train`.
        UnhealthyTrainingError: the embeddings collapsed, or an alarm ends the run.
            Nothing is published then.
    """
    recipe = PretrainRecipe(config, shards, folders.logs, warm_start_dir, is_served)
    return scaffold.run(recipe, folders, on_step)


class PretrainRecipe(scaffold.Recipe[DualEncoder]):
    """The stages of a pretraining; see `run_pretraining` for the arguments."""

    def __init__(
        self,
        config: PretrainConfig,
        shards: Shards,
        log_dir: str,
        warm_start_dir: str | None,
        is_served: bool,
    ) -> None:
        self.config, self.seed, self.shards, self.log_dir = config, config.seed, shards, log_dir
        self.warm_start_dir, self.is_served = warm_start_dir, is_served

    def check(self, strategy: tf.distribute.Strategy) -> None:
        """Refuse sizes and shards that do not fit; see the base class."""
        config, manifest = self.config, self.shards.manifest
        _check_sizes(config, strategy)
        shard_checks.check_patch_size(manifest, config.encoder)
        shard_checks.check_split(
            "train",
            self.shards.train,
            manifest,
            sensors=SENSORS,
            num_needed=config.global_batch_size,
        )
        shard_checks.check_split("eval", self.shards.eval, manifest, sensors=SENSORS)

    def build(self, strategy: tf.distribute.Strategy) -> training.Fit:
        """Make encoders, objective, data, monitor and optimizer; see the base class."""
        config, manifest = self.config, self.shards.manifest
        with strategy.scope():
            dual_encoder = build_model(config, manifest, self.warm_start_dir)
            features_dim = dual_encoder.encoders["s1"].output["features"].shape[-1]
            objective = make_objective(config, features_dim)
            model = ContrastiveModel(dual_encoder, objective)
        train_set, self._eval_set = _make_datasets(config, objective.views, self.shards)
        # Before the first step: the monitor measures progress from the first weights.
        monitor = HealthMonitor(
            config,
            dual_encoder,
            model=model,
            pairs=EvalPairs(manifest=manifest, files=self.shards.eval),
            log=HealthLog(folder=self.log_dir, is_writer=is_chief(strategy)),
            is_new=self.warm_start_dir is None,
        )
        with strategy.scope():
            optimizer = make_optimizer(config.optimizer, config.num_steps, config.precision)
        self._dual_encoder, self._objective, self._monitor = dual_encoder, objective, monitor
        return training.Fit(
            model=model,
            compute_loss=TwoStageLoss(
                encode=functools.partial(model.encode, training=True),
                loss=model.replica_scalars,
                num_micro_batches=_count_micro_batches(config, strategy),
            ),
            optimizer=optimizer,
            dataset=train_set,
            num_steps=config.num_steps,
            checkpoint_every=config.checkpoint_every,
            check=monitor.check,
            check_every=config.health.check_every,
            is_control=config.objective == "none",
        )

    def finish(self) -> DualEncoder:
        """Return both encoders and heads in float32."""
        return with_dual_precision(self._dual_encoder, "float32")

    def evaluate(
        self, model: DualEncoder, train_loss: float, strategy: tf.distribute.Strategy
    ) -> dict[str, float]:
        """Return the loss on the eval split and the figures of the health checks."""
        del strategy
        # An unhealthy training ends here, before the costly evaluation.
        self._conclusion = self._monitor.conclude(model, train_loss)
        scores = evaluate(ContrastiveModel(model, self._objective), self._eval_set)
        return {**scores, **self._conclusion.metrics}

    def export(self, model: DualEncoder, output_dir: str, metrics: Mapping[str, float]) -> None:
        """Write the encoders with what the health checks found."""
        start, found = self.warm_start_dir, self._conclusion
        export.export_encoder(
            model,
            output_dir,
            provenance=Provenance(
                name="encoder",
                config=self.config,
                manifest=self.shards.manifest,
                metrics=metrics,
                started_from={} if start is None else dict.fromkeys(SENSORS, start),
            ),
            health={"alarms": list(found.alarms), "not_measured": found.not_measured},
            embedding_map=found.picture,
            is_served=self.is_served,
        )


def build_model(
    config: PretrainConfig, manifest: Manifest, warm_start_dir: str | None
) -> DualEncoder:
    """Return a new dual encoder, or the published one of `warm_start_dir`.

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


def evaluate(model: ContrastiveModel, dataset: tf.data.Dataset) -> dict[str, float]:
    """Return the loss on held-out pairs.

    Args:
        model: what is evaluated.
        dataset: batches of the objective's views.

    Returns:
        `eval_loss`: mean over all pairs, which weigh the same. A short last batch has
        fewer negatives, so compare only losses of one objective, data set and batch
        size. `num_eval_pairs`: the number of pairs.
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


def _make_datasets(
    config: PretrainConfig, views: Sequence[str], shards: Shards
) -> tuple[training.DatasetFunction, tf.data.Dataset]:
    """Return the train batches from any step on, and the eval batches."""
    manifest = shards.manifest
    # Do not decode a sensor that the objective does not use.
    num_bands = {
        sensor: len(manifest.bands(sensor)) for sensor in SENSORS if sensor in map(sensor_of, views)
    }
    with_location = config.min_negative_km > 0
    train_set = functools.partial(
        input_pipeline.train_dataset,
        shards.train,
        input_pipeline.Features(
            num_bands=num_bands,
            with_weight=config.use_weights,
            with_location=with_location,
            with_patch_id=True,
        ),
        EpochPlan(
            num_examples=manifest.num_examples["train"],
            batch_size=config.global_batch_size,
            shuffle_buffer=config.shuffle_buffer,
            seed=config.seed,
        ),
        reading=config.input,
        transform=train_views(config, views, manifest),
    )
    # The batch size of training: a contrastive loss is comparable only between equal
    # numbers of negatives. Pairs are never broken here, not even for the "shuffled"
    # control: a model that learned from broken pairs must not find the true ones.
    eval_set = input_pipeline.eval_dataset(
        shards.eval,
        input_pipeline.Features(
            num_bands=num_bands,
            with_location=with_location,
        ),
        batch_size=config.global_batch_size,
        reading=config.input,
        transform=eval_views(config, views, manifest),
    )
    return lambda first_step: train_set(first_step=first_step), eval_set.take(
        config.num_eval_batches
    )


def _check_sizes(config: PretrainConfig, strategy: tf.distribute.Strategy) -> None:
    """Refuse a batch that cannot be shared evenly by replicas, micro-batches or chunks.

    Raises:
        ValueError: with the sizes.
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


def _count_micro_batches(config: PretrainConfig, strategy: tf.distribute.Strategy) -> int:
    """Return the number of parts in which a replica encodes its share of the batch."""
    if config.micro_batch_size is None:
        return 1
    return config.global_batch_size // strategy.num_replicas_in_sync // config.micro_batch_size
