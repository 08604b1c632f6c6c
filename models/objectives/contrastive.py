"""Softmax objectives: cross-modal InfoNCE, NT-Xent over both sensors, and SimCLR.

Input: embeddings by view. Output: losses per pair.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import tensorflow as tf

from models.objectives import chunks
from models.objectives.global_batch import GlobalBatch
from models.objectives.objective import Objective, Outputs, ViewName
from models.training import replicas


class Multimodal(Objective):
    """Symmetric InfoNCE between the sensors.

    Each embedding must find its partner among all patches of the other sensor.

    Source: Jain et al. 2022, arXiv 2209.02329 (positives are the two sensors of one
    place). The symmetric form without negatives from the own sensor is Radford et al.
    2021, arXiv 2103.00020, figure 3.
    """

    views: ClassVar[tuple[ViewName, ...]] = ("s1", "s2")
    has_chance_loss = True

    def chance_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return ln S of each pair, weighted; its candidates together count S."""
        num = batch.count_candidates(tf.ones_like(batch.all_valid), self.config.logits_chunk_size)
        return tf.math.log(num) * batch.weight

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted loss of each pair, float32 [B]; see `Objective`."""
        losses = cross_modal(
            outputs["s1"],
            outputs["s2"],
            self.temperature.value(),
            batch,
            self.config.logits_chunk_size,
        )
        return losses * batch.weight


class Multimodal2N(Objective):
    """NT-Xent over all 2N embeddings: patches of the own sensor are negatives, too.

    Source: Chen et al. 2020 (SimCLR), arXiv 2002.05709, eq. 1; with two sensors as the
    two views: Scheibenreif et al. 2022 (SSLTransformerRS).
    """

    views: ClassVar[tuple[ViewName, ...]] = ("s1", "s2")
    has_chance_loss = True

    def chance_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return ln (2 S - 1) of each pair, weighted; the own side has no partner."""
        num = batch.count_candidates(tf.ones_like(batch.all_valid), self.config.logits_chunk_size)
        return tf.math.log(2.0 * num - 1.0) * batch.weight

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted loss of each pair, float32 [B]; see `Objective`."""
        return self.nt_xent_of_views(outputs, batch, *self.views) * batch.weight

    def nt_xent_of_views(
        self, outputs: Outputs, batch: GlobalBatch, first: ViewName, second: ViewName
    ) -> Any:
        """Return the losses of finding `second` from `first` and back, float32 [B].

        The candidates are the embeddings of both views. The losses are not weighted.
        """
        chunk_size = self.config.logits_chunk_size
        return nt_xent(outputs[first], outputs[second], self.temperature.value(), batch, chunk_size)


class SimCLRS1(Multimodal2N):
    """NT-Xent of two augmented views of each Sentinel-1 patch.

    Sentinel-2 is not used, and its encoder keeps its initial weights.

    Source: Chen et al. 2020 (SimCLR), arXiv 2002.05709, eq. 1: the baseline of Jain et
    al. 2022, arXiv 2209.02329.
    """

    views: ClassVar[tuple[ViewName, ...]] = ("s1_a", "s1_b")


class SimCLRS2(Multimodal2N):
    """NT-Xent of two augmented views of each Sentinel-2 patch; see `SimCLRS1`."""

    views: ClassVar[tuple[ViewName, ...]] = ("s2_a", "s2_b")


class MultimodalIntra(Multimodal2N):
    """Cross-modal InfoNCE plus `intra_weight` times SimCLR of each sensor.

    Source: Prexl and Schmitt 2023 (IaI-SimCLR: intra- and inter-modality terms of equal
    weight).
    """

    views: ClassVar[tuple[ViewName, ...]] = ("s1", "s2", "s1_b", "s2_b")

    def chance_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted sum of ln S and twice ln (2 S - 1) of each pair."""
        num = batch.count_candidates(tf.ones_like(batch.all_valid), self.config.logits_chunk_size)
        within = 2.0 * self.config.intra_weight * tf.math.log(2.0 * num - 1.0)
        return (tf.math.log(num) + within) * batch.weight

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted loss of each pair, float32 [B]; see `Objective`."""
        chunk_size = self.config.logits_chunk_size
        between = cross_modal(
            outputs["s1"], outputs["s2"], self.temperature.value(), batch, chunk_size
        )
        within = self.nt_xent_of_views(outputs, batch, "s1", "s1_b")
        within += self.nt_xent_of_views(outputs, batch, "s2", "s2_b")
        return (between + self.config.intra_weight * within) * batch.weight


def cross_modal(
    first: Any, second: Any, temperature: Any, batch: GlobalBatch, chunk_size: int | None
) -> Any:
    """Return the mean of two cross-entropies: finding each row's partner, both ways.

    The candidates are all N embeddings of the other side.

    Args:
        first: embeddings of this replica float32 [B, E], unit norm.
        second: embeddings of the other side; row i is the partner of row i of `first`.
        temperature: float32 scalar.
        batch: the global batch.
        chunk_size: rows whose logits are in memory at a time; None = all.

    Returns:
        float32 [B], not weighted.
    """

    def losses(positions: Any, rows: Any, shared: Any) -> Any:
        (own_first, own_second), (all_first, all_second, heat) = rows, shared  # [b, E], [N, E]
        log_weights = batch.log_weights(positions)  # [b, N]
        forth = tf.matmul(own_first, all_second, transpose_b=True) / heat + log_weights
        back = tf.matmul(own_second, all_first, transpose_b=True) / heat + log_weights
        partner = batch.own(positions)
        return 0.5 * (_cross_entropy(partner, forth) + _cross_entropy(partner, back))

    shared = [replicas.gather(first), replicas.gather(second), temperature]
    return chunks.by_row_chunks(losses, [first, second], shared, chunk_size)


def nt_xent(
    first: Any, second: Any, temperature: Any, batch: GlobalBatch, chunk_size: int | None
) -> Any:
    """Return the same as `cross_modal`, but among all 2N - 1 other embeddings.

    The other embeddings of the own side are candidates, too.
    """

    def losses(positions: Any, rows: Any, shared: Any) -> Any:
        (own_first, own_second), (all_first, all_second, heat) = rows, shared  # [b, E], [N, E]
        log_weights = batch.log_weights(positions)  # [b, N]
        # Use -inf: a large negative number would overflow in half precision.
        log_weights_within = tf.where(batch.is_own(positions), -math.inf, log_weights)
        partner = batch.own(positions)
        total = tf.constant(0.0)
        for own, others, alike in (
            (own_first, all_second, all_first),
            (own_second, all_first, all_second),
        ):
            between = tf.matmul(own, others, transpose_b=True) / heat + log_weights
            within = tf.matmul(own, alike, transpose_b=True) / heat + log_weights_within
            # The partners are in the first N of the 2N columns.
            total += 0.5 * _cross_entropy(partner, tf.concat([between, within], axis=1))
        return total

    shared = [replicas.gather(first), replicas.gather(second), temperature]
    return chunks.by_row_chunks(losses, [first, second], shared, chunk_size)


def _cross_entropy(label: Any, logits: Any) -> Any:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(label, logits)
