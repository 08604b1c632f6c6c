"""The model of contrastive pretraining: encoders, heads, the objective's weights.

Input: a batch of pixels by view. Output: embeddings in a first stage, the loss in a
second one. The first stage can run on parts of the batch (`gradient_cache.py`).
"""

from __future__ import annotations

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from models.dual_encoder import DualEncoder
from models.objectives.chance import ChanceRecord
from models.objectives.objective import CHANCE_LOSS, NUM_CANDIDATES, Objective, sensor_of
from models.training import replicas
from models.training.steps import VALID_FRACTION, Batch


class ContrastiveModel(keras.Model):
    """The parts of a dual encoder that an objective trains, and the objective.

    Attributes:
        objective: what is learned.
        encoders: by sensor; only those that the objective uses. The others have no
            gradient, and weight decay must not change them.
        heads: by sensor, of the same sensors.
        chance: what guessing costs in the last batches; empty for an objective without
            candidates.
    """

    def __init__(self, dual_encoder: DualEncoder, objective: Objective) -> None:
        super().__init__(name="contrastive_model")
        sensors = [sensor for sensor in SENSORS if sensor in map(sensor_of, objective.views)]
        self.objective = objective
        self.encoders = {sensor: dual_encoder.encoders[sensor] for sensor in sensors}
        self.heads = {sensor: dual_encoder.heads[sensor] for sensor in sensors}
        self.chance = ChanceRecord(has_loss=objective.has_chance_loss)

    def encode(self, batch: Batch, training: bool) -> Batch:
        """Run the first stage: return the embeddings of each view.

        Row i of the outputs depends on other rows only through batch normalization.

        Args:
            batch: pixels float32 [B, H, W, C] of each of the objective's views, NaN =
                no data. It may also have `lon` and `lat` [B] and `weight` [B].
            training: whether batch normalization uses the batch's statistics.

        Returns:
            The input of `Objective.losses_and_figures`. A pair is not valid when a view
            has no valid pixel: all such patches look alike, whatever is on the ground.
        """
        outputs = {name: batch[name] for name in ("lon", "lat", "weight") if name in batch}
        valid = []
        for view in self.objective.views:
            sensor = sensor_of(view)
            encoder = self.encoders[sensor]
            encoded = (
                encoder(batch[view], training=True) if training else encoder.infer(batch[view])
            )
            head = self.heads[sensor]
            outputs[view] = (
                head(encoded["pooled"], training=training)
                if self.objective.compares_unit_vectors
                else head.project(encoded["pooled"])
            )
            outputs |= self.objective.describe_view(view, encoded)
            valid.append(tf.reduce_max(encoded["valid_mask"], axis=[1, 2, 3]))
        outputs["valid"] = tf.reduce_min(tf.stack(valid), axis=0)
        return {"weight": tf.ones_like(outputs["valid"])} | outputs

    def pair_losses(self, outputs: Batch) -> tf.Tensor:
        """Return the loss of each pair of this replica, float32 [B]."""
        return self.objective.losses_and_figures(outputs)[0]

    def replica_scalars(self, outputs: Batch) -> dict[str, tf.Tensor]:
        """Run the second stage: return `loss` and further scalars.

        These are the share of valid pairs and the objective's figures. Their sums over
        the replicas are the figures of the global batch. Call it once for each step:
        `chance` keeps what guessing costs in the batch.
        """
        losses, figures = self.objective.losses_and_figures(outputs)
        if self.objective.has_candidates:
            self.chance.add(
                replicas.sum_over_replicas(figures.get(CHANCE_LOSS, tf.constant(0.0))),
                replicas.sum_over_replicas(figures[NUM_CANDIDATES]),
            )
        means = {"loss": tf.reduce_mean(losses), VALID_FRACTION: tf.reduce_mean(outputs["valid"])}
        return {name: mean / replicas.num_replicas() for name, mean in means.items()} | figures
