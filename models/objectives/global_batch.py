"""The global batch as one replica sees it: weights of its pairs and of their negatives.

Input: weights, longitudes and latitudes of this replica's pairs. Output: weights of
mean 1, and a weight for each (own pair, any pair).
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from beam_jobs.contracts.sphere import EARTH_RADIUS_KM
from models.objectives import chunks
from models.training import replicas


class GlobalBatch:
    """Weights of pairs and of negatives.

    The weight of a pair is that of its positive. As a negative, a doubtful pair counts
    fully, since each of its images is sound. A pair that is not valid (a sensor without
    any valid pixel) has no loss and is no negative. Negatives nearer than
    `min_negative_km` have the weight `false_negative_weight`. Neighbouring patches
    often look the same; pushing them apart would teach the encoder to separate what is
    alike.

    Source: Huynh et al. 2020, arXiv 2011.11765 (cancelling false negatives); by
    distance on the ground: this project.

    Attributes:
        num_rows: number B of this replica's pairs, int32.
        first_row: position of this replica's first pair among all, int32.
        num_pairs: N, float32.
        weight: weights of this replica's pairs float32 [B], 0 where not valid, scaled
            to mean 1 over the global batch.
        all_weight: the same of all replicas, float32 [N].
        all_valid: float32 [N], 1 = valid, 0 = not.
    """

    def __init__(
        self,
        weight: Any,
        valid: Any,
        *,
        location: tuple[Any, Any] | None = None,
        min_negative_km: float = 0.0,
        false_negative_weight: float = 0.0,
    ) -> None:
        """Gather the weights and places of all replicas.

        Args:
            weight: float32 [B], at least 0; only ratios matter.
            valid: float32 [B], 1 = valid, 0 = not.
            location: longitude and latitude in degrees, float32 [B] each. NaN is far
                from everything. Not needed if `min_negative_km` is 0.
            min_negative_km: nearer negatives are false, by great-circle distance; 0 =
                none are.
            false_negative_weight: weight of false negatives, 0-1.

        Raises:
            ValueError: there is a minimum distance but no locations.
        """
        if min_negative_km > 0 and location is None:
            raise ValueError(
                f"min_negative_km {min_negative_km} needs lon and lat in the batch, got none"
            )
        self.num_rows = tf.shape(weight)[0]
        self.first_row = replicas.first_row(self.num_rows)
        self.all_valid, raw_weight = replicas.gather(valid), replicas.gather(weight * valid)
        self.num_pairs = tf.cast(tf.shape(raw_weight)[0], tf.float32)
        # Weights of 1 stay exactly 1. Without any weight all losses are 0, not NaN.
        scale = tf.math.divide_no_nan(self.num_pairs, tf.reduce_sum(raw_weight))
        self.weight, self.all_weight = weight * valid * scale, raw_weight * scale
        self._min_negative_km, self._false_negative_weight = min_negative_km, false_negative_weight
        self._xyz: Any = None
        if location is not None and min_negative_km > 0:
            self._xyz = _unit_vectors(*location)
            self._all_xyz = replicas.gather(self._xyz)

    def own(self, positions: Any) -> Any:
        """Return the rows of this replica's pairs among all pairs, int32 [b].

        `positions` int32 [b] are positions on this replica.
        """
        return self.first_row + positions

    def log_weights(self, positions: Any) -> Any:
        """Return the log weights of all pairs for some pairs, float32 [b, N].

        `positions` int32 [b] are positions on this replica. -inf = does not count. It
        is 0 in the pair's own column: that is its positive, or the pair itself.
        """
        weights = tf.where(self.all_valid > 0.0, 0.0, -math.inf)[tf.newaxis]
        if self._xyz is not None:
            near = (
                math.log(self._false_negative_weight)
                if self._false_negative_weight > 0
                else -math.inf
            )
            weights += tf.where(self._is_near(positions), near, 0.0)
        return tf.where(self.is_own(positions), 0.0, weights)

    def is_own(self, positions: Any) -> Any:
        """Return where a column is the row's own pair, bool [b, N]."""
        return self.own(positions)[:, tf.newaxis] == tf.range(tf.shape(self.all_valid)[0])

    def near_fraction(self, chunk_size: int | None) -> Any:
        """Return this replica's part of the share of false negatives, 0-1.

        False negatives are nearer than the minimum distance. The sum over all replicas
        is the share.
        """
        if self._xyz is None:
            return tf.constant(0.0)

        def count(positions: Any, rows: Any, shared: Any) -> Any:
            near = self._is_near(positions) & ~self.is_own(positions)
            return tf.reduce_sum(tf.cast(near, tf.float32), axis=1)

        # The function only needs one row per pair; their values are not used.
        num_near = tf.reduce_sum(chunks.by_row_chunks(count, [self._xyz], [], chunk_size))
        return num_near / tf.maximum(self.num_pairs * (self.num_pairs - 1.0), 1.0)

    def count_candidates(self, per_pair: Any, chunk_size: int | None) -> Any:
        """Return what all pairs together count for each pair, float32 [B].

        `per_pair` float32 [N] is what each pair counts; in the sum it has the weight of
        `log_weights`. Without masks and with 1 for each pair, the sum is N.
        """

        def count(positions: Any, rows: Any, shared: Any) -> Any:
            return tf.linalg.matvec(tf.exp(self.log_weights(positions)), per_pair)

        return chunks.by_row_chunks(count, [self.weight], [], chunk_size)

    def num_full_candidates(self, chunk_size: int | None) -> Any:
        """Return this replica's part of the mean number of candidates.

        Candidates of a pair are its partner and the negatives that count in full. The
        mean has the weights of the pairs. The sum over all replicas is the mean.
        """

        def count(positions: Any, rows: Any, shared: Any) -> Any:
            is_full = self.log_weights(positions) >= 0.0
            return tf.reduce_sum(tf.cast(is_full, tf.float32), axis=1)

        counts = chunks.by_row_chunks(count, [self.weight], [], chunk_size)
        return tf.reduce_sum(counts * self.weight) / self.num_pairs

    def _is_near(self, positions: Any) -> Any:
        own = tf.gather(self._xyz, positions)
        # Use differences: in float32 the cosine of 1 km is exactly 1.
        squares = [
            (own[:, axis, tf.newaxis] - self._all_xyz[tf.newaxis, :, axis]) ** 2
            for axis in range(3)
        ]
        chord = 2.0 * math.sin(0.5 * self._min_negative_km / EARTH_RADIUS_KM)
        return squares[0] + squares[1] + squares[2] < chord**2


def _unit_vectors(lon: Any, lat: Any) -> Any:
    """Return points on the unit sphere, float32 [B, 3], of degrees.

    The straight line between two points gives their great-circle distance.
    """
    # Compute in float64, so that only the last rounding remains: 0.4 m on the ground.
    lon, lat = (tf.cast(degrees, tf.float64) * (math.pi / 180.0) for degrees in (lon, lat))
    xyz = tf.stack([tf.cos(lat) * tf.cos(lon), tf.cos(lat) * tf.sin(lon), tf.sin(lat)], axis=1)
    return tf.cast(xyz, tf.float32)
