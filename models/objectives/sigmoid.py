"""The pairwise sigmoid objective: each of the N x N combinations is a binary question.

Input: embeddings by view. Output: losses per pair.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from models.objectives import chunks
from models.objectives.global_batch import GlobalBatch
from models.objectives.objective import Objective, Outputs, ViewName
from models.training import replicas

INITIAL_BIAS = -10.0
"""Makes all combinations negative at first, since almost all of them are.

Source: Zhai et al. 2023, arXiv 2303.15343, section 3.2.
"""


class Sigmoid(Objective):
    """Classifies each combination of two patches as partners or not.

    There is no softmax, so only one side is gathered. Loss of row i: -sum over j of log
    sigmoid(z_ij (s1_i s2_j / temperature + bias)), z_ij = 1 if i = j, else -1. The
    weight of a pair is that of its positive; its negatives count fully. Temperature
    (0.1 at first, as in the source) and bias are learned.

    Source: Zhai et al. 2023 (SigLIP), arXiv 2303.15343, section 3.2.

    Attributes:
        bias: added to all logits.
    """

    views: ClassVar[tuple[ViewName, ...]] = ("s1", "s2")
    learns_temperature = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bias = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(INITIAL_BIAS), name="bias"
        )

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted loss of each pair, float32 [B]; see `Objective`."""

        def losses(positions: Any, rows: Any, shared: Any) -> Any:
            (own_s1,), (all_s2, heat, bias) = rows, shared  # [b, E], [N, E]
            logits = tf.matmul(own_s1, all_s2, transpose_b=True) / heat + bias  # [b, N]
            sign = tf.where(batch.is_own(positions), 1.0, -1.0)
            # A negative between two valid pairs counts 1. Over the global batch
            # `negative_weight` has mean 1, as the weights of the positives have.
            counts = tf.gather(negative_weight, positions)[:, tf.newaxis] * tf.exp(
                batch.log_weights(positions)
            )
            counts = tf.where(
                batch.is_own(positions), tf.gather(batch.weight, positions)[:, tf.newaxis], counts
            )
            return tf.reduce_sum(tf.nn.softplus(-sign * logits) * counts, axis=1)

        all_valid = batch.all_valid
        own_valid = tf.gather(all_valid, batch.own(tf.range(batch.num_rows)))
        # Invalid pairs reduce the sum. The factor turns the mean over the batch into
        # one over the valid pairs.
        negative_weight = own_valid * tf.math.divide_no_nan(
            batch.num_pairs, tf.reduce_sum(all_valid)
        )
        shared = [
            replicas.gather(outputs["s2"]),
            self.temperature.value(),
            tf.convert_to_tensor(self.bias),
        ]
        return chunks.by_row_chunks(losses, [outputs["s1"]], shared, self.config.logits_chunk_size)
