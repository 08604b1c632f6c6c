"""Cross-modal retrieval: is a patch's nearest neighbour in the other sensor its own partner?

Input: embeddings of both sensors, row i the same patch. Output: recall. Called by
`monitor.py` and the encoder's probe. NumPy only; memory grows with the number of
patches, not with its square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from beam_jobs.contracts.bands import SENSORS, Sensor

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

RECALL_KS = (1, 5, 10)

TIE_TOLERANCE = 1e-6
"""Cosines nearer than this are equal: float32 has 1.2e-7, a sum of some hundred products a few times that. Without it
rounding would rank the equal embeddings of a collapsed encoder."""

_ROWS_AT_A_TIME = 256


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where each query's partner stands among all N keys.

    Attributes:
        num_better: int64 [N], keys that are more similar to the query than its partner.
        num_equal: int64 [N], keys other than the partner that are as similar.
    """

    num_better: IntArray
    num_equal: IntArray

    def recall_at(self, k: int) -> float:
        """Share of queries whose partner is among the `k` nearest keys, 0-1.

        Ties are broken by lot, and the value is the mean over the draws: a collapsed
        encoder scores exactly chance, k / N.
        """
        # Of the `num_equal + 1` places that the partner may get, this many are among
        # the first k.
        return float(np.mean(np.clip((k - self.num_better) / (self.num_equal + 1), 0.0, 1.0)))

    def recall_among(self, num_candidates: int) -> float:
        """Expected recall@1 if each query saw its partner and `num_candidates` - 1 other keys drawn by lot, 0-1.

        Raises:
            ValueError: fewer keys than candidates, or no candidate.
        """
        return float(np.mean(self.wins_among(num_candidates)))

    def wins_among(self, num_candidates: int) -> FloatArray:
        """`recall_among` of each query, float64 [N].

        This makes recall comparable with that within a training batch. With M keys, b
        better and e equal ones the partner wins with probability (C(M-b, n) -
        C(M-b-e-1, n)) / ((e+1) C(M-1, n-1)), n = `num_candidates`.

        Raises:
            ValueError: fewer keys than candidates, or no candidate.
        """
        num_keys = len(self.num_better)
        if not 1 <= num_candidates <= num_keys:
            raise ValueError(
                f"num_candidates must be within 1 and the {num_keys} keys, got {num_candidates}"
            )
        total = _log_choose(np.array([num_keys - 1]), num_candidates - 1)
        worst = num_keys - self.num_better
        wins = np.exp(_log_choose(worst, num_candidates) - total)
        wins -= np.exp(_log_choose(worst - self.num_equal - 1, num_candidates) - total)
        return wins / (self.num_equal + 1)


def rank_partners(queries: FloatArray, keys: FloatArray) -> Ranks:
    """Ranks of each query's partner by cosine.

    Args:
        queries: unit norm, [N, E].
        keys: unit norm, [N, E]; row i is the partner of query i.

    Raises:
        ValueError: no rows, different shapes, or a value that is not finite (it would
            count as found).
    """
    if queries.shape != keys.shape or queries.ndim != 2 or not len(queries):
        raise ValueError(
            f"queries and keys must be [N, E] alike with N at least 1, got {queries.shape}, {keys.shape}"
        )
    if not (np.isfinite(queries).all() and np.isfinite(keys).all()):
        raise ValueError("embeddings must be finite to be ranked, got NaN or infinity")
    num_better = np.empty(len(queries), np.int64)
    num_equal = np.empty(len(queries), np.int64)
    for first in range(0, len(queries), _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        cosines = queries[rows] @ keys.T  # [rows, N]
        # From the same product: another order of summation could differ in the last
        # bit.
        partner = np.diagonal(cosines, offset=first)[:, np.newaxis]
        num_better[rows] = (cosines > partner + TIE_TOLERANCE).sum(axis=1)
        num_equal[rows] = (np.abs(cosines - partner) <= TIE_TOLERANCE).sum(axis=1) - 1
    return Ranks(num_better=num_better, num_equal=num_equal)


def cross_modal_ranks(embeddings: dict[Sensor, FloatArray]) -> dict[str, Ranks]:
    """Ranks in both directions, "s1_to_s2" and "s2_to_s1", of the embeddings [N, E] by sensor."""
    s1, s2 = (embeddings[sensor] for sensor in SENSORS)
    return {"s1_to_s2": rank_partners(s1, s2), "s2_to_s1": rank_partners(s2, s1)}


def recall_metrics(ranks: dict[str, Ranks], ks: Sequence[int] = RECALL_KS) -> dict[str, float]:
    """`recall_at_<k>/<direction>`, 0-1, for each k and direction; chance is k / N."""
    return {
        f"recall_at_{k}/{direction}": item.recall_at(k)
        for direction, item in ranks.items()
        for k in ks
    }


def _log_choose(n: npt.NDArray[np.int64], k: int) -> FloatArray:
    """Logarithm of the binomial coefficients C(n, k); -inf where n < k."""
    safe = np.maximum(n, k)
    return np.where(n < k, -np.inf, gammaln(safe + 1) - gammaln(k + 1) - gammaln(safe - k + 1))
