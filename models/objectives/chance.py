"""The loss of guessing: what a batch would cost if all embeddings were equal.

Input: the figures of each step. Output: their mean over the last steps, for the alarms
of `models.health`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from models.training.step_log import NUM_LAST_STEPS


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Guessing in the train batches.

    Attributes:
        loss: loss of equal embeddings under the masks and weights of the batches, in
            nats. None for objectives whose loss is not a cross-entropy over candidates.
        num_candidates: mean number of patches among which a pair must find its partner,
            the partner included. Invalid pairs and false negatives are no candidates.
    """

    loss: float | None
    num_candidates: float


class ChanceRecord(keras.layers.Layer):
    """The `Chance` of the last steps, whose losses are averaged, too.

    It is a variable, so that checkpoints hold it: a training that continues after its
    last step is judged like the uninterrupted one.
    """

    def __init__(self, *, has_loss: bool) -> None:
        """Make an empty record; `has_loss` says whether `add` gets losses."""
        super().__init__(dtype="float32", name="chance_record")
        self._has_loss = has_loss
        self._rows = self.add_weight(
            shape=(NUM_LAST_STEPS, 2),
            initializer="zeros",
            trainable=False,
            # All replicas compute the same figures, so take the first replica's.
            aggregation="only_first_replica",
            name="last_steps",
        )

    def add(self, loss: Any, num_candidates: Any) -> None:
        """Append the figures of a global batch, float32 scalars."""
        row = tf.stack([loss, num_candidates])[tf.newaxis]
        self._rows.assign(tf.concat([tf.convert_to_tensor(self._rows)[1:], row], axis=0))

    def mean(self) -> Chance | None:
        """Return the means over the last steps; None before the first step."""
        rows = self._rows.numpy()
        # The partner is a candidate, so a row of a step has at least one.
        rows = rows[rows[:, 1] > 0.0]
        if not len(rows):
            return None
        loss, num_candidates = (float(value) for value in rows.mean(axis=0, dtype=float))
        return Chance(loss=loss if self._has_loss else None, num_candidates=num_candidates)
