"""The pairwise sigmoid objective: each of the N x N combinations is a binary question of its own.

Input: embeddings by view. Output: losses per pair. Chosen by `registry.py`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from models.objectives import chunks
from models.objectives.global_batch import GlobalBatch
from models.objectives.objective import Objective, Outputs
from models.training import replicas

INITIAL_BIAS = -10.0
"""Source: Zhai et al. 2023, arXiv 2303.15343, section 3.2: almost all combinations are negative, and are at first
taken for it."""


class Sigmoid(Objective):
    """Is this Sentinel-2 patch the partner of this Sentinel-1 patch? No softmax, so only one side is gathered.

    Loss of row i: -sum over j of log sigmoid(z_ij (s1_i s2_j / temperature + bias)),
    z_ij = 1 if i = j, else -1. A pair's weight is that of its positive; its negatives
    count in full. Temperature (0.1 at first, as in the source) and bias are learned.
    Source: Zhai et al. 2023 (SigLIP), arXiv 2303.15343, section 3.2.

    Attributes:
        bias: added to all logits.
    """

    views = ("s1", "s2")
    learns_temperature = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bias = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(INITIAL_BIAS), name="bias"
        )

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """See `Objective`."""

        def losses(positions: Any, rows: Any, shared: Any) -> Any:
            (own_s1,), (all_s2, heat, bias) = rows, shared  # [b, E], [N, E]
            logits = tf.matmul(own_s1, all_s2, transpose_b=True) / heat + bias  # [b, N]
            sign = tf.where(batch.is_own(positions), 1.0, -1.0)
            # Of negatives: 1 between two valid pairs, on average over the global batch
            # as many as positives.
            counts = tf.gather(negative_weight, positions)[:, tf.newaxis] * tf.exp(
                batch.log_weights(positions)
            )
            counts = tf.where(
                batch.is_own(positions), tf.gather(batch.weight, positions)[:, tf.newaxis], counts
            )
            return tf.reduce_sum(tf.nn.softplus(-sign * logits) * counts, axis=1)

        all_valid = batch.all_valid
        own_valid = tf.gather(all_valid, batch.own(tf.range(batch.num_rows)))
        # Invalid pairs make the sum smaller; the mean over the batch is then one over
        # the valid pairs.
        negative_weight = own_valid * tf.math.divide_no_nan(
            batch.num_pairs, tf.reduce_sum(all_valid)
        )
        shared = [
            replicas.gather(outputs["s2"]),
            self.temperature.value(),
            tf.convert_to_tensor(self.bias),
        ]
        return chunks.by_row_chunks(losses, [outputs["s1"]], shared, self.config.logits_chunk_size)
