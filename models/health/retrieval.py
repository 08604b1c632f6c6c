"""Cross-modal retrieval: how often a patch's nearest neighbour is its partner.

The partner of a patch is the image of the same patch by the other sensor. Input:
embeddings of both sensors, row i the same patch. Output: ranks and recall. NumPy only;
memory grows linearly with the number of patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from beam_jobs.contracts import sphere
from beam_jobs.contracts.bands import SENSORS, Sensor

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

Direction = Literal["s1_to_s2", "s2_to_s1"]
"""Which sensor's embeddings are the queries, and which sensor's are searched."""

RECALL_KS = (1, 5, 10)

TIE_TOLERANCE = 1e-6
"""Cosines that differ by less count as equal.

The precision of float32 is 1.2e-7, and a sum of a few hundred products is a few times
less precise. Without the tolerance, rounding would rank the equal embeddings of a
collapsed encoder.
"""

_ROWS_AT_A_TIME = 256


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Rank of each query's partner among all N keys.

    Attributes:
        num_better: number of keys more similar to the query than its partner, int64
            [N].
        num_equal: number of other keys as similar as the partner, int64 [N].
        num_keys: number of keys that were compared, the partner included, int64 [N].
            None: all N of them.
    """

    num_better: IntArray
    num_equal: IntArray
    num_keys: IntArray | None = None

    def recall_at(self, k: int) -> float:
        """Return the share of queries whose partner is among the `k` nearest keys, 0-1.

        Ties are broken at random, and the value is the mean over all ways to break
        them. So a collapsed encoder scores exactly chance, k / N.
        """
        # The partner has one of `num_equal + 1` places. This share of them is among the
        # first k.
        return float(np.mean(np.clip((k - self.num_better) / (self.num_equal + 1), 0.0, 1.0)))

    def recall_among(self, num_candidates: int) -> float:
        """Return the expected recall@1 among fewer candidates, 0-1.

        Each query sees its partner and `num_candidates` - 1 other keys, drawn at
        random, or all of its keys if they are fewer. This makes recall comparable
        between splits of different sizes and with the recall inside a train batch.

        Raises:
            ValueError: there are fewer keys than candidates, or no candidate.
        """
        return float(np.mean(self.wins_among(num_candidates)))

    def wins_among(self, num_candidates: int) -> FloatArray:
        """Return `recall_among` of each query, float64 [N].

        With M keys, b better ones, e equal ones and n candidates, the partner is the
        nearest with probability (C(M-b, n) - C(M-b-e-1, n)) / ((e+1) C(M-1, n-1)).

        Raises:
            ValueError: there are fewer rows than candidates, or no candidate.
        """
        num_rows = len(self.num_better)
        if not 1 <= num_candidates <= num_rows:
            raise ValueError(
                f"num_candidates must be between 1 and the {num_rows} keys, got {num_candidates}"
            )
        num_keys = np.full(num_rows, num_rows) if self.num_keys is None else self.num_keys
        drawn = np.minimum(num_candidates, num_keys)
        total = _log_choose(num_keys - 1, drawn - 1)
        worst = num_keys - self.num_better
        wins = np.exp(_log_choose(worst, drawn) - total)
        wins -= np.exp(_log_choose(worst - self.num_equal - 1, drawn) - total)
        return wins / (self.num_equal + 1)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where N patches are, and how near neighbours are.

    Attributes:
        lon: longitudes in degrees [N].
        lat: latitudes in degrees [N]. NaN is far from everything.
        min_km: patches nearer than this, by great-circle distance, are neighbours.
    """

    lon: FloatArray
    lat: FloatArray
    min_km: float

    def are_neighbours(self, rows: slice) -> npt.NDArray[np.bool_]:
        """Return which patches are neighbours of those at `rows`, bool [rows, N].

        A patch is no neighbour of itself.
        """
        lon, lat = self.lon[rows, np.newaxis], self.lat[rows, np.newaxis]
        distances_km = sphere.distance_km(lon, lat, self.lon[np.newaxis], self.lat[np.newaxis])
        near = distances_km < self.min_km
        return near & (np.arange(len(self.lon))[rows, np.newaxis] != np.arange(len(self.lon)))


def rank_partners(queries: FloatArray, keys: FloatArray, places: Places | None = None) -> Ranks:
    """Rank each query's partner among all keys by cosine.

    Args:
        queries: query embeddings [N, E], unit norm.
        keys: key embeddings [N, E], unit norm; row i is the partner of query i.
        places: where the patches are, to leave out the neighbours of each query. None:
            all keys are compared.

    Raises:
        ValueError: there are no rows, the shapes differ, or a value is not finite.
    """
    if queries.shape != keys.shape or queries.ndim != 2 or not len(queries):
        raise ValueError(
            "queries and keys must both be [N, E] with N at least 1, "
            f"got {queries.shape} and {keys.shape}"
        )
    if not (np.isfinite(queries).all() and np.isfinite(keys).all()):
        raise ValueError("embeddings must be finite to be ranked, got NaN or infinity")
    num_better = np.empty(len(queries), np.int64)
    num_equal = np.empty(len(queries), np.int64)
    num_keys = np.empty(len(queries), np.int64)
    for first in range(0, len(queries), _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        cosines = queries[rows] @ keys.T  # [rows, N]
        # Take the partner's cosine from the same product. Another order of summation
        # could change the last bit.
        partner = np.diagonal(cosines, offset=first)[:, np.newaxis]
        counts = np.ones(cosines.shape, bool) if places is None else ~places.are_neighbours(rows)
        num_better[rows] = (counts & (cosines > partner + TIE_TOLERANCE)).sum(axis=1)
        is_equal = counts & (np.abs(cosines - partner) <= TIE_TOLERANCE)
        num_equal[rows], num_keys[rows] = is_equal.sum(axis=1) - 1, counts.sum(axis=1)
    return Ranks(num_better=num_better, num_equal=num_equal, num_keys=num_keys)


def cross_modal_ranks(
    embeddings: Mapping[Sensor, FloatArray], places: Places | None = None
) -> dict[Direction, Ranks]:
    """Return the ranks of the partners in both directions.

    Args:
        embeddings: embeddings [N, E] by sensor, unit norm, row i the same patch.
        places: see `rank_partners`.
    """
    s1, s2 = (embeddings[sensor] for sensor in SENSORS)
    return {
        "s1_to_s2": rank_partners(s1, s2, places),
        "s2_to_s1": rank_partners(s2, s1, places),
    }


def recall_metrics(
    ranks: Mapping[Direction, Ranks], ks: Sequence[int] = RECALL_KS
) -> dict[str, float]:
    """Return `recall_at_<k>/<direction>`, 0-1, for each k and direction.

    Chance is k / N.
    """
    return {
        f"recall_at_{k}/{direction}": item.recall_at(k)
        for direction, item in ranks.items()
        for k in ks
    }


def _log_choose(n: IntArray, k: IntArray) -> FloatArray:
    """Return the logarithm of the binomial coefficients C(n, k); -inf where n < k."""
    safe = np.maximum(n, k)
    return np.where(n < k, -np.inf, gammaln(safe + 1) - gammaln(k + 1) - gammaln(safe - k + 1))
