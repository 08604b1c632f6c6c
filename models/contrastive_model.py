"""What contrastive pretraining trains: the encoders and heads that an objective needs, and the objective's own weights.

Input: a batch of pixels by view. Output: first what the encoders make of it, then the
loss; the two stages can run on parts of the batch and on the whole of it
(`gradient_cache.py`). Built by `pretrain.py`.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from models.dual_encoder import DualEncoder
from models.objectives.objective import Objective, sensor_of
from models.training import replicas
from models.training.steps import VALID_FRACTION, Batch


class ContrastiveModel(keras.Model):
    """A dual encoder seen through an objective.

    Attributes:
        objective: what is learned.
        encoders: by sensor, only those the objective looks at: the others have no
            gradient, and must not decay either.
        heads: by sensor, likewise.
    """

    def __init__(self, dual_encoder: DualEncoder, objective: Objective) -> None:
        super().__init__(name="contrastive_model")
        sensors = [sensor for sensor in SENSORS if sensor in map(sensor_of, objective.views)]
        self.objective = objective
        self.encoders = {sensor: dual_encoder.encoders[sensor] for sensor in sensors}
        self.heads = {sensor: dual_encoder.heads[sensor] for sensor in sensors}

    def encode(self, batch: Batch, training: bool) -> Batch:
        """The first stage; row i of the outputs depends on other rows through batch normalization only.

        Args:
            batch: pixels float32 [B, H, W, C] of each of the objective's views, NaN =
                no data; if there are any, also `lon` and `lat` [B] and `weight` [B].
            training: whether batch normalization uses the batch.

        Returns:
            What `Objective.losses_and_figures` wants. A pair is not valid when a view
            has no valid pixel at all: all such patches look alike, whatever is on the
            ground.
        """
        outputs = {name: batch[name] for name in ("lon", "lat", "weight") if name in batch}
        valid = []
        for view in self.objective.views:
            sensor = sensor_of(view)
            encoded = self.encoders[sensor](batch[view], training=training)
            outputs[view] = self.heads[sensor](encoded["pooled"], training=training)
            outputs |= self.objective.describe_view(view, encoded)
            valid.append(tf.reduce_max(encoded["valid_mask"], axis=[1, 2, 3]))
        outputs["valid"] = tf.reduce_min(tf.stack(valid), axis=0)
        return {"weight": tf.ones_like(outputs["valid"])} | outputs

    def pair_losses(self, outputs: Batch) -> tf.Tensor:
        """float32 [B], the loss of each pair of this replica."""
        return self.objective.losses_and_figures(outputs)[0]

    def replica_scalars(self, outputs: Batch) -> dict[str, tf.Tensor]:
        """The second stage: `loss`, the share of pairs that are valid and the objective's figures.

        Their sums over the replicas are those of the global batch.
        """
        losses, figures = self.objective.losses_and_figures(outputs)
        means = {"loss": tf.reduce_mean(losses), VALID_FRACTION: tf.reduce_mean(outputs["valid"])}
        return {name: mean / replicas.num_replicas() for name, mean in means.items()} | figures
