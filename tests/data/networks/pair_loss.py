"""The loss of the multimodal objective as a plain function, for tests of the training loop."""

from typing import Any

import tensorflow as tf

from models.objectives.contrastive import cross_modal
from models.objectives.global_batch import GlobalBatch
from models.training import replicas


def pair_loss(s1: Any, s2: Any, temperature: float = 0.2, weight: Any = None) -> tf.Tensor:
    """Return this replica's part of the loss of embeddings [B, E] with unit norm.

    The sum over the replicas is the loss of the global batch.
    """
    ones = tf.ones_like(s1[:, 0])
    batch = GlobalBatch(ones if weight is None else weight, ones)
    losses = cross_modal(s1, s2, tf.constant(temperature), batch, chunk_size=None)
    return tf.reduce_mean(losses * batch.weight) / replicas.num_replicas()
