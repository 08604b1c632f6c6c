"""The global batch as one replica sees it: its own pairs' weights, and which of all patches are their negatives.

Input: weights, longitudes and latitudes of this replica's pairs. Output: weights that
average 1, and a weight for each (own pair, any pair). Made once per loss by the
objectives.
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

    A weight says how much a pair counts as a positive; as a negative a doubtful pair
    counts in full, since its images are sound each on its own. A pair that is not valid
    (a sensor without a valid pixel) is as good as not in the batch: it has no loss, and
    it is nobody's negative. Negatives nearer than `min_negative_km` count
    `false_negative_weight`: neighbours often look the same, and pushing them apart
    teaches the encoder to tell apart what is alike.
    Source: Huynh et al. 2020, arXiv 2011.11765 (cancelling false negatives); by
    distance on the ground: this project.

    Attributes:
        first_row: of this replica's pairs among all.
        num_pairs: N, float32.
        weight: float32 [B], this replica's weights, 0 where not valid, scaled to
            average 1 over the global batch.
        all_weight: float32 [N], the same of all replicas.
        all_valid: float32 [N], 1 = valid, 0 = not.
    """

    def __init__(
        self,
        weight: Any,
        valid: Any,
        location: tuple[Any, Any] | None = None,
        min_negative_km: float = 0.0,
        false_negative_weight: float = 0.0,
    ) -> None:
        """Gathers what the replicas need to know of each other.

        Args:
            weight: float32 [B], at least 0; only ratios count.
            valid: float32 [B], 1 = valid, 0 = not.
            location: longitude and latitude in degrees, float32 [B] each; a NaN is far
                from everything. Not needed when `min_negative_km` is 0.
            min_negative_km: great-circle distance below which negatives are false; 0 =
                none are.
            false_negative_weight: what they count then, 0-1.

        Raises:
            ValueError: a minimum distance without locations.
        """
        if min_negative_km > 0 and location is None:
            raise ValueError(
                f"min_negative_km {min_negative_km} needs lon and lat in the batch, got none"
            )
        self.num_rows = tf.shape(weight)[0]
        self.first_row = replicas.first_row(self.num_rows)
        self.all_valid, raw_weight = replicas.gather(valid), replicas.gather(weight * valid)
        self.num_pairs = tf.cast(tf.shape(raw_weight)[0], tf.float32)
        # All ones stay exactly ones. Without any weight all losses are 0, not NaN.
        scale = tf.math.divide_no_nan(self.num_pairs, tf.reduce_sum(raw_weight))
        self.weight, self.all_weight = weight * valid * scale, raw_weight * scale
        self._min_negative_km, self._false_negative_weight = min_negative_km, false_negative_weight
        self._xyz: Any = None
        if location is not None and min_negative_km > 0:
            self._xyz = _unit_vectors(*location)
            self._all_xyz = replicas.gather(self._xyz)

    def own(self, positions: Any) -> Any:
        """Rows among all pairs, int32 [b], of this replica's pairs at `positions` int32 [b]."""
        return self.first_row + positions

    def log_weights(self, positions: Any) -> Any:
        """Logarithm of what each of all pairs counts for the pairs at `positions`, float32 [b, N]; -inf = not at all.

        0 in the pair's own column: that is its positive, or itself.
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
        """Bool [b, N], true in each pair's own column."""
        return self.own(positions)[:, tf.newaxis] == tf.range(tf.shape(self.all_valid)[0])

    def near_fraction(self, chunk_size: int | None) -> Any:
        """This replica's part of the share of negatives that are nearer than the minimum, 0-1; the parts add up."""
        if self._xyz is None:
            return tf.constant(0.0)

        def count(positions: Any, rows: Any, shared: Any) -> Any:
            near = self._is_near(positions) & ~self.is_own(positions)
            return tf.reduce_sum(tf.cast(near, tf.float32), axis=1)

        # The rows are only counted, so anything with one row per pair will do.
        num_near = tf.reduce_sum(chunks.by_row_chunks(count, [self._xyz], [], chunk_size))
        return num_near / tf.maximum(self.num_pairs * (self.num_pairs - 1.0), 1.0)

    def _is_near(self, positions: Any) -> Any:
        own = tf.gather(self._xyz, positions)
        # Differences, not the cosine: within float32 the cosine of 1 km is 1.
        squares = [
            (own[:, axis, tf.newaxis] - self._all_xyz[tf.newaxis, :, axis]) ** 2
            for axis in range(3)
        ]
        chord = 2.0 * math.sin(0.5 * self._min_negative_km / EARTH_RADIUS_KM)
        return squares[0] + squares[1] + squares[2] < chord**2


def _unit_vectors(lon: Any, lat: Any) -> Any:
    """Points on the unit sphere, float32 [B, 3], of degrees; the straight line between two tells their distance."""
    # float64 within, so that only the last rounding remains: 0.4 m on the ground.
    lon, lat = (tf.cast(degrees, tf.float64) * (math.pi / 180.0) for degrees in (lon, lat))
    xyz = tf.stack([tf.cos(lat) * tf.cos(lon), tf.cos(lat) * tf.sin(lon), tf.sin(lat)], axis=1)
    return tf.cast(xyz, tf.float32)
