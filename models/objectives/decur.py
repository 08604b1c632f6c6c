"""Decoupled common and unique dimensions: a redundancy-reduction objective without negatives.

Input: embeddings by view. Output: losses per pair. Chosen by `registry.py`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.objectives.global_batch import GlobalBatch
from models.objectives.objective import Objective, Outputs
from models.training import replicas

OFF_DIAGONAL_WEIGHT = 0.0051
"""Source: Zbontar et al. 2021 (Barlow Twins), arXiv 2103.03230, section 3."""

_EPSILON = 1e-5
"""Added to variances. Source: PyTorch's BatchNorm1d, which both published codes standardize with."""


class DeCUR(Objective):
    """Some dimensions say what both sensors see, the others what only one sees.

    With C the correlation matrix of two views' dimensions over the global batch, the
    loss is the mean of four terms: within each sensor C of two augmented views should
    be the identity in all dimensions; between the sensors it should be the identity in
    the first `decur_common_dim` dimensions, and 0 in the others. There are no
    negatives, so `min_negative_km` means nothing here and is refused; temperature plays
    no part. Equal weights of the four terms: this project.
    Source: Wang et al. 2023 (DeCUR), arXiv 2309.05300, section 3.
    """

    views = ("s1", "s2", "s1_b", "s2_b")

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """See `Objective`; the loss is of the batch as a whole, so all pairs have the same."""
        share = batch.all_weight / batch.num_pairs  # [N], sums to 1
        dims = {
            view: _standardize(replicas.gather(outputs[view]), share) for view in self.views
        }  # [N, E]
        weighted = {view: dims[view] * share[:, tf.newaxis] for view in ("s1", "s2")}
        between = tf.matmul(weighted["s1"], dims["s2"], transpose_a=True)  # [E, E]
        num_common = self.config.num_common_dims
        loss = 0.25 * (
            _distance(tf.matmul(weighted["s1"], dims["s1_b"], transpose_a=True), 1.0)
            + _distance(tf.matmul(weighted["s2"], dims["s2_b"], transpose_a=True), 1.0)
            + _distance(between[:num_common, :num_common], 1.0)
            + _distance(between[num_common:, num_common:], 0.0)
        )
        # Without any weight the correlations are 0 and say nothing.
        return tf.fill([batch.num_rows], tf.where(tf.reduce_sum(batch.all_weight) > 0.0, loss, 0.0))


def _standardize(rows: Any, share: Any) -> Any:
    """`rows` [N, E] with mean 0 and variance 1 in each dimension, both weighted by `share` [N]."""
    mean = tf.linalg.matvec(rows, share, transpose_a=True)
    centered = rows - mean
    variance = tf.linalg.matvec(centered**2, share, transpose_a=True)
    return centered * tf.math.rsqrt(variance + _EPSILON)


def _distance(matrix: Any, diagonal: float) -> Any:
    """Squared distance of `matrix` [E, E] from `diagonal` times the identity, what is off the diagonal weighing less."""
    on_diagonal = tf.linalg.diag_part(matrix)
    off_diagonal = tf.reduce_sum(matrix**2) - tf.reduce_sum(on_diagonal**2)
    return tf.reduce_sum((on_diagonal - diagonal) ** 2) + OFF_DIAGONAL_WEIGHT * off_diagonal
