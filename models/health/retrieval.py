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
    """

    num_better: IntArray
    num_equal: IntArray

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
        random. This makes recall comparable between splits of different sizes and with
        the recall inside a train batch.

        Raises:
            ValueError: there are fewer keys than candidates, or no candidate.
        """
        return float(np.mean(self.wins_among(num_candidates)))

    def wins_among(self, num_candidates: int) -> FloatArray:
        """Return `recall_among` of each query, float64 [N].

        With M keys, b better ones, e equal ones and n candidates, the partner is the
        nearest with probability (C(M-b, n) - C(M-b-e-1, n)) / ((e+1) C(M-1, n-1)).

        Raises:
            ValueError: there are fewer keys than candidates, or no candidate.
        """
        num_keys = len(self.num_better)
        if not 1 <= num_candidates <= num_keys:
            raise ValueError(
                f"num_candidates must be between 1 and the {num_keys} keys, got {num_candidates}"
            )
        total = _log_choose(np.array([num_keys - 1]), num_candidates - 1)
        worst = num_keys - self.num_better
        wins = np.exp(_log_choose(worst, num_candidates) - total)
        wins -= np.exp(_log_choose(worst - self.num_equal - 1, num_candidates) - total)
        return wins / (self.num_equal + 1)


def rank_partners(queries: FloatArray, keys: FloatArray) -> Ranks:
    """Rank each query's partner among all keys by cosine.

    Args:
        queries: query embeddings [N, E], unit norm.
        keys: key embeddings [N, E], unit norm; row i is the partner of query i.

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
    for first in range(0, len(queries), _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        cosines = queries[rows] @ keys.T  # [rows, N]
        # Take the partner's cosine from the same product. Another order of summation
        # could change the last bit.
        partner = np.diagonal(cosines, offset=first)[:, np.newaxis]
        num_better[rows] = (cosines > partner + TIE_TOLERANCE).sum(axis=1)
        num_equal[rows] = (np.abs(cosines - partner) <= TIE_TOLERANCE).sum(axis=1) - 1
    return Ranks(num_better=num_better, num_equal=num_equal)


def cross_modal_ranks(embeddings: Mapping[Sensor, FloatArray]) -> dict[Direction, Ranks]:
    """Return the ranks of the partners in both directions.

    Args:
        embeddings: embeddings [N, E] by sensor, unit norm, row i the same patch.
    """
    s1, s2 = (embeddings[sensor] for sensor in SENSORS)
    return {"s1_to_s2": rank_partners(s1, s2), "s2_to_s1": rank_partners(s2, s1)}


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


def _log_choose(n: npt.NDArray[np.int64], k: int) -> FloatArray:
    """Return the logarithm of the binomial coefficients C(n, k); -inf where n < k."""
    safe = np.maximum(n, k)
    return np.where(n < k, -np.inf, gammaln(safe + 1) - gammaln(k + 1) - gammaln(safe - k + 1))
