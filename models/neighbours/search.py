"""Search: the patches whose embedding in one sensor is nearest to that of a patch in the same or the other sensor.

An `EmbeddingIndex` and some of its rows -> answers by cosine, exact. Called by `python
-m pipeline search`. NumPy only; keys are read in pieces, so that memory does not grow
with the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.sphere import distance_km
from models.health.retrieval import TIE_TOLERANCE
from models.neighbours.index import EmbeddingIndex, FloatArray, IndexedPatch

IntArray = npt.NDArray[np.int64]

_KEYS_AT_A_TIME = 1 << 16
_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One patch of the index, compared with a query.

    Attributes:
        row: of the index.
        rank: 1 = nearest.
        similarity: cosine, -1 to 1.
        distance_km: from the query, on the ground.
        gap_days: when its image was taken, less when the query's was.
        is_partner: whether it is the query's own patch, seen by the other sensor.
    """

    row: int
    rank: int
    similarity: float
    distance_km: float
    gap_days: float
    is_partner: bool


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one query found.

    Attributes:
        row: of the query.
        answers: nearest first.
        partner: where its own patch stands among all M; equals count against it, so
            that a collapsed encoder's stands last. None within one sensor.
    """

    row: int
    answers: tuple[Answer, ...]
    partner: Answer | None


def find_patch(patches: Sequence[IndexedPatch], wanted: str) -> int:
    """The row of a patch id, or of the patch nearest to "lon,lat" in degrees.

    Raises:
        ValueError: an id that the index does not have, or no place on Earth.
    """
    if "," in wanted:
        lon, lat = _parse_place(wanted)
        gaps = distance_km(
            lon, lat, [patch.lon for patch in patches], [patch.lat for patch in patches]
        )
        return int(np.argmin(gaps))
    for row, patch in enumerate(patches):
        if patch.patch_id == wanted:
            return row
    raise ValueError(
        f"patch {wanted!r}: must be a patch_id of the index's {len(patches)} patches, or lon,lat in degrees"
    )


def draw_patches(num_patches: int, num_drawn: int, seed: int) -> list[int]:
    """Rows drawn by lot, each once; all when there are fewer than `num_drawn`."""
    rng = np.random.default_rng(seed)
    return rng.choice(num_patches, size=min(num_drawn, num_patches), replace=False).tolist()


def search(
    index: EmbeddingIndex,
    rows: Sequence[int],
    *,
    query_sensor: Sensor,
    answer_sensor: Sensor,
    k: int,
) -> list[Found]:
    """The `k` nearest patches of each query, or as many as there are; within one sensor without the query itself.

    Args:
        index: where to search.
        rows: the queries.
        query_sensor: whose embeddings are asked with.
        answer_sensor: whose embeddings are searched.
        k: at least 1.
    """
    queries, keys = (
        np.asarray(index.embeddings[query_sensor][list(rows)]),
        index.embeddings[answer_sensor],
    )
    is_across = query_sensor != answer_sensor
    nearest_rows, cosines = nearest(queries, keys, k, None if is_across else np.asarray(rows))
    partner_cosines = (queries * keys[list(rows)]).sum(axis=1)
    partner_ranks = count_as_near(queries, keys, partner_cosines) if is_across else None

    def compare(query: int, row: int, rank: int, cosine: float) -> Answer:
        asked, found = index.patches[query], index.patches[row]
        seconds = found.acquired_at(answer_sensor) - asked.acquired_at(query_sensor)
        return Answer(
            row=row,
            rank=rank,
            similarity=cosine,
            distance_km=float(distance_km(asked.lon, asked.lat, found.lon, found.lat)),
            gap_days=seconds / _SECONDS_PER_DAY,
            is_partner=is_across and row == query,
        )

    results = []
    for number, query in enumerate(rows):
        pairs = zip(nearest_rows[number].tolist(), cosines[number].tolist(), strict=True)
        answers = tuple(
            compare(query, row, rank, cosine) for rank, (row, cosine) in enumerate(pairs, start=1)
        )
        partner = None
        if partner_ranks is not None:
            partner = compare(
                query, query, int(partner_ranks[number]), float(partner_cosines[number])
            )
        results.append(Found(row=query, answers=answers, partner=partner))
    return results


def nearest(
    queries: FloatArray, keys: FloatArray, k: int, hidden: IntArray | None = None
) -> tuple[IntArray, FloatArray]:
    """The keys of largest cosine, by comparing all with all.

    Args:
        queries: unit norm, [Q, E].
        keys: unit norm, [M, E]; may be memory-mapped.
        k: how many; M at most, of which `hidden` takes one.
        hidden: a key [Q] that each query must not find; None = none.

    Returns:
        Rows [Q, k] and cosines [Q, k], the largest first; of equals the one that comes
        first in `keys`.
    """
    k = min(k, len(keys) - (hidden is not None))
    best_rows, best = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for first, cosines in _pieces(queries, keys):
        if hidden is not None:
            inside = np.flatnonzero((hidden >= first) & (hidden < first + cosines.shape[1]))
            cosines[inside, hidden[inside] - first] = -np.inf
        rows = np.broadcast_to(np.arange(first, first + cosines.shape[1]), cosines.shape)
        best_rows, best = (
            np.concatenate([best_rows, rows], axis=1),
            np.concatenate([best, cosines], axis=1),
        )
        # Stable: what came first stays first among equals.
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best_rows, best = (
            np.take_along_axis(best_rows, order, axis=1),
            np.take_along_axis(best, order, axis=1),
        )
    return best_rows, best


def count_as_near(queries: FloatArray, keys: FloatArray, cosines: FloatArray) -> IntArray:
    """How many keys have at least the cosine [Q] with each query, rounding aside (see `retrieval.TIE_TOLERANCE`)."""
    least = cosines[:, np.newaxis] - TIE_TOLERANCE
    return np.sum([(found >= least).sum(axis=1) for _, found in _pieces(queries, keys)], axis=0)


def _pieces(queries: FloatArray, keys: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Cosines of the queries with a piece of the keys, and the row at which the piece begins."""
    for first in range(0, len(keys), _KEYS_AT_A_TIME):
        yield first, queries @ np.asarray(keys[first : first + _KEYS_AT_A_TIME]).T


def _parse_place(text: str) -> tuple[float, float]:
    try:
        lon, lat = map(float, text.split(","))
    except ValueError as error:
        raise ValueError(f"patch {text!r}: must be a patch_id, or lon,lat in degrees") from error
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise ValueError(f"patch {text!r}: lon must be within -180 to 180 and lat within -90 to 90")
    return lon, lat
