"""Search: the patches nearest to a patch, in the same or in the other sensor.

Input: an `EmbeddingIndex` and rows of it. Output: answers by cosine, exact. NumPy only.
Keys are read in pieces, so memory does not grow with the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.errors import ExitCode, TerrapairError
from beam_jobs.contracts.sphere import distance_km
from models.health.retrieval import TIE_TOLERANCE
from models.neighbours.index import EmbeddingIndex, FloatArray, IndexedPatch

IntArray = npt.NDArray[np.int64]

_KEYS_AT_A_TIME = 1 << 16
_SECONDS_PER_DAY = 86_400.0


_MAX_WIDTHS = 5.0
_UNKNOWN_WIDTH_KM = 1.0
"""Width of a patch where the index does not say it: about 96 pixels of 10 m."""


class FarPlaceError(TerrapairError, ValueError):
    """No patch of the index is near the place; one line with distance and extent."""

    exit_code = ExitCode.BAD_DATA


@dataclass(frozen=True, kw_only=True)
class Query:
    """The patch that a search starts from.

    Attributes:
        row: row in the index.
        place_km: distance of its centre from the place that was asked for; None for a
            patch id.
    """

    row: int
    place_km: float | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One patch of the index compared with a query.

    Attributes:
        row: row in the index.
        rank: 1 = nearest.
        similarity: cosine, -1 to 1.
        distance_km: distance from the query on the ground.
        gap_days: acquisition time of the answer minus that of the query.
        is_partner: whether it is the query's own patch in the other sensor.
    """

    row: int
    rank: int
    similarity: float
    distance_km: float
    gap_days: float
    is_partner: bool


@dataclass(frozen=True, kw_only=True)
class Found:
    """Result of one query.

    Attributes:
        row: row of the query.
        answers: answers, nearest first.
        partner: the query's own patch in the other sensor, with its rank among all M.
            Equally similar patches rank before it, so with a collapsed encoder it is
            last. None within one sensor.
    """

    row: int
    answers: tuple[Answer, ...]
    partner: Answer | None


def default_max_km(patch_width_km: float | None) -> float:
    """Return how far from a place a patch may be to stand for it, in km.

    A patch shows the place when its centre is nearer than half its diagonal, 0.7
    widths. Clouds, no data and buffers between splits leave gaps of some patches, and
    ground a few patches away is mostly of the same kind. So the limit is 5 widths.
    Beyond it the answers would be about other ground.

    Args:
        patch_width_km: width of the index' patches; None = the index does not say.
    """
    return _MAX_WIDTHS * (_UNKNOWN_WIDTH_KM if patch_width_km is None else patch_width_km)


def find_patch(patches: Sequence[IndexedPatch], wanted: str, max_km: float) -> Query:
    """Return the patch that a search starts from.

    Args:
        patches: patches of the index.
        wanted: a patch id, or "lon,lat" in degrees for the nearest patch.
        max_km: largest distance between a place and the centre of its patch.

    Raises:
        FarPlaceError: no patch is that near to the place.
        ValueError: the index does not have the id, or the place is not on Earth.
    """
    if "," in wanted:
        lon, lat = _parse_place(wanted)
        gaps = distance_km(
            lon, lat, [patch.lon for patch in patches], [patch.lat for patch in patches]
        )
        row = int(np.argmin(gaps))
        found = Query(row=row, place_km=float(gaps[row]))
        if not gaps[row] <= max_km:
            nearest_patch = patches[row]
            raise FarPlaceError(
                f"{wanted.strip()}: the index has no patch within {max_km:.1f} km (--max-km): the "
                f"nearest is {gaps[row]:.1f} km away, {nearest_patch.patch_id} at lon "
                f"{nearest_patch.lon:.3f}, lat {nearest_patch.lat:.3f}; its {len(patches)} patches "
                f"lie in {_describe_extent(patches)}"
            )
        return found
    for row, patch in enumerate(patches):
        if patch.patch_id == wanted:
            return Query(row=row, place_km=None)
    raise ValueError(
        f"patch {wanted!r}: must be a patch_id of the index's {len(patches)} patches, "
        "or lon,lat in degrees"
    )


def draw_patches(num_patches: int, num_drawn: int, seed: int) -> list[int]:
    """Return random rows, each once; all rows if there are fewer than `num_drawn`."""
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
    """Return the `k` nearest patches of each query, or as many as there are.

    A search within one sensor leaves the query itself out.

    Args:
        index: index to search.
        rows: rows of the queries.
        query_sensor: sensor of the query embeddings.
        answer_sensor: sensor of the embeddings to search.
        k: number of patches, at least 1.
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
    """Return the keys of largest cosine, by comparing every query with every key.

    Args:
        queries: embeddings [Q, E], unit norm.
        keys: embeddings [M, E], unit norm; may be memory-mapped.
        k: number of keys; at most M, or M - 1 with `hidden`.
        hidden: one key [Q] that each query must not find; None = none.

    Returns:
        Rows [Q, k] and cosines [Q, k], the largest first. Of equal ones the first in
        `keys` comes first.
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
        # A stable sort keeps the first of equal keys first.
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best_rows, best = (
            np.take_along_axis(best_rows, order, axis=1),
            np.take_along_axis(best, order, axis=1),
        )
    return best_rows, best


def count_as_near(queries: FloatArray, keys: FloatArray, cosines: FloatArray) -> IntArray:
    """Return how many keys have at least the cosine [Q] with each query, [Q].

    Cosines that differ by less than `retrieval.TIE_TOLERANCE` count as equal.
    """
    least = cosines[:, np.newaxis] - TIE_TOLERANCE
    return np.sum([(found >= least).sum(axis=1) for _, found in _pieces(queries, keys)], axis=0)


def _pieces(queries: FloatArray, keys: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    """Yield the first row of a piece of the keys, and its cosines with the queries."""
    for first in range(0, len(keys), _KEYS_AT_A_TIME):
        yield first, queries @ np.asarray(keys[first : first + _KEYS_AT_A_TIME]).T


def _describe_extent(patches: Sequence[IndexedPatch]) -> str:
    """Return the longitudes and latitudes between which all patches lie."""
    lons = np.sort([patch.lon for patch in patches])
    # The patches begin after the widest gap, so the range may cross 180 degrees.
    gaps = np.diff(lons, append=lons[0] + 360.0)
    last = int(np.argmax(gaps))
    west, east = lons[(last + 1) % len(lons)], lons[last]
    lats = [patch.lat for patch in patches]
    across = " (across 180)" if west > east else ""
    return f"lon {west:.3f} to {east:.3f}{across}, lat {min(lats):.3f} to {max(lats):.3f}"


def _parse_place(text: str) -> tuple[float, float]:
    try:
        lon, lat = map(float, text.split(","))
    except ValueError as error:
        raise ValueError(f"patch {text!r}: must be a patch_id, or lon,lat in degrees") from error
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise ValueError(f"patch {text!r}: lon must be -180 to 180 and lat -90 to 90")
    return lon, lat
