"""DeCUR: decoupled common and unique dimensions, an objective without negatives.

Input: embeddings by view. Output: losses per pair.
"""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from models.objectives.global_batch import GlobalBatch
from models.objectives.objective import Objective, Outputs, ViewName
from models.training import replicas

OFF_DIAGONAL_WEIGHT = 0.0051
"""Source: Zbontar et al. 2021 (Barlow Twins), arXiv 2103.03230, section 3."""

_EPSILON = 1e-5
"""Added to variances.

Source: PyTorch's BatchNorm1d, with which both published codes standardize.
"""


class DeCUR(Objective):
    """Some dimensions encode what both sensors see, the others what only one sees.

    C is the correlation matrix of two views' dimensions over the global batch. Each
    dimension of the heads' projections gets mean 0 and variance 1 over the global
    batch. The projections have no unit norm before that, as in the source: unit norm
    would couple the dimensions, and variances would come near `_EPSILON`. The loss
    is the mean of four terms. Within each sensor, C of two augmented views should be
    the identity in all dimensions. Between the sensors it should be the identity in the
    first `decur_common_dim` dimensions and 0 in the others. There are no negatives, so
    the config refuses `min_negative_km`. The temperature has no effect. Equal weights
    of the four terms: this project.

    Source: Wang et al. 2023 (DeCUR), arXiv 2309.05300, section 3, and its code
    (github.com/zhu-xlab/DeCUR, src/pretrain/models/decur.py: a batch normalization
    without scale and offset after the last layer of the projector).
    """

    compares_unit_vectors = False
    has_candidates = False
    views: ClassVar[tuple[ViewName, ...]] = ("s1", "s2", "s1_b", "s2_b")

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the loss of the whole batch for each pair, float32 [B]."""
        share = batch.all_weight / batch.num_pairs  # [N], sums to 1
        dims = {
            view: _standardize(replicas.gather(outputs[view]), share) for view in self.views
        }  # [N, E]
        weighted = {view: dims[view] * share[:, tf.newaxis] for view in SENSORS}
        between = tf.matmul(weighted["s1"], dims["s2"], transpose_a=True)  # [E, E]
        num_common = self.config.num_common_dims
        loss = 0.25 * (
            _distance(tf.matmul(weighted["s1"], dims["s1_b"], transpose_a=True), 1.0)
            + _distance(tf.matmul(weighted["s2"], dims["s2_b"], transpose_a=True), 1.0)
            + _distance(between[:num_common, :num_common], 1.0)
            + _distance(between[num_common:, num_common:], 0.0)
        )
        # Without any weight all correlations are 0 and carry no information.
        return tf.fill([batch.num_rows], tf.where(tf.reduce_sum(batch.all_weight) > 0.0, loss, 0.0))


def _standardize(rows: Any, share: Any) -> Any:
    """Return `rows` [N, E] with mean 0 and variance 1 in each dimension.

    Mean and variance are weighted by `share` [N].
    """
    mean = tf.linalg.matvec(rows, share, transpose_a=True)
    centered = rows - mean
    variance = tf.linalg.matvec(centered**2, share, transpose_a=True)
    return centered * tf.math.rsqrt(variance + _EPSILON)


def _distance(matrix: Any, diagonal: float) -> Any:
    """Return the squared distance of `matrix` [E, E] from a multiple of the identity.

    Elements off the diagonal have a lower weight.
    """
    on_diagonal = tf.linalg.diag_part(matrix)
    off_diagonal = tf.reduce_sum(matrix**2) - tf.reduce_sum(on_diagonal**2)
    return tf.reduce_sum((on_diagonal - diagonal) ** 2) + OFF_DIAGONAL_WEIGHT * off_diagonal
