"""Overlaps: whether two patches show the same ground, by place or by image content.

Input: records of shards. Output: an AuditedPatch of each, and an Index that finds the
labelled patches that a pair overlaps. Pure functions.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.records import FloatArray, PairedPatch

HASH_BITS = 128
"""Bits of a hash: 64 of Sentinel-2, then 64 of Sentinel-1."""
MIN_S2_TEXTURE = 0.005
"""Least standard deviation of a patch's 72 block means, in reflectance.

Below it, differences are noise, as on open water.
"""
MIN_S1_TEXTURE = 0.7
"""As MIN_S2_TEXTURE, in dB; speckle alone gives about 0.3 in a patch of 64 px."""
_ROWS, _COLS = 8, 9
_EQUATOR_RADIUS_M, _ECCENTRICITY_SQUARED = 6_378_137.0, 0.00669438
# WGS 84. Errors of a plane over rounded float32 coordinates and a rotated UTM grid:
# patches side by side must not count as overlapping.
_TOLERANCE_M, _TOLERANCE = 2.0, 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedPatch:
    """The little that the audit keeps of a patch.

    Attributes:
        patch_id: of the patch.
        split: split of the patch.
        lon: of its centre, degrees.
        lat: of its centre, degrees.
        height_m: north to south.
        width_m: west to east.
        hash: the HASH_BITS bits of `difference_hash`; None when the patch has too
            little texture.
    """

    patch_id: str
    split: str
    lon: float
    lat: float
    height_m: float
    width_m: float
    hash: int | None


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two patches of the same ground.

    Attributes:
        pair_patch_id: unlabeled patch.
        label_patch_id: labelled patch.
        label_split: split of the labelled patch.
        distance_m: between their centres.
        footprints_overlap: whether they share ground, or lie closer than the buffer.
        hash_distance: number of bits in which their hashes differ; None when they
            differ in too many.
    """

    pair_patch_id: str
    label_patch_id: str
    label_split: str
    distance_m: float
    footprints_overlap: bool
    hash_distance: int | None


def audited_patch(
    patch: PairedPatch,
    split: str,
    pixel_size_m: float,
    channels: Mapping[Sensor, list[int]],
) -> AuditedPatch:
    """Return what the audit keeps of a record.

    Args:
        patch: the record.
        split: of the record.
        pixel_size_m: ground size of a pixel.
        channels: the channels of each sensor that enter the hash; both sides of a
            comparison must use the same bands.
    """
    return AuditedPatch(
        patch_id=patch.patch_id,
        split=split,
        lon=patch.lon,
        lat=patch.lat,
        height_m=patch.height * pixel_size_m,
        width_m=patch.width * pixel_size_m,
        hash=difference_hash(patch.s1[..., channels["s1"]], patch.s2[..., channels["s2"]]),
    )


def difference_hash(s1: FloatArray, s2: FloatArray) -> int | None:
    """Return the perceptual hash of both images, or None with too little texture.

    Each image is averaged over 8 x 9 blocks. Each bit says which of two neighbouring
    blocks is brighter. The hash survives rounding, a change of brightness and small
    errors. It does not survive a rotation or another patch size.

    Args:
        s1: backscatter in dB, float32 [H, W, C1], NaN = no data; H and W at least 9.
        s2: reflectance, float32 [H, W, C2], NaN = no data.

    Returns:
        HASH_BITS bits; None when a block has no data, or when one of the images has too
        little texture to be told from another.
    """
    value = 0
    for pixels, min_texture in ((s2, MIN_S2_TEXTURE), (s1, MIN_S1_TEXTURE)):
        means = _block_means(pixels.mean(axis=-1))
        # `not >=` is also true for NaN.
        if means is None or not means.std() >= min_texture:
            return None
        bits = np.packbits(means[:, 1:] > means[:, :-1])
        value = value << 64 | int.from_bytes(bits.tobytes(), "big")
    return value


def _block_means(plane: FloatArray) -> FloatArray | None:
    """Return the means of 8 x 9 blocks over valid pixels; None if a block has none."""
    valid = np.isfinite(plane)
    total = _block_sums(np.where(valid, plane, 0.0).astype(np.float64))
    count = _block_sums(valid.astype(np.float64))
    return total / count if (count > 0).all() else None


def _block_sums(plane: FloatArray) -> FloatArray:
    height, width = plane.shape
    rows = np.arange(_ROWS) * height // _ROWS
    cols = np.arange(_COLS) * width // _COLS
    return np.add.reduceat(np.add.reduceat(plane, rows, axis=0), cols, axis=1)


def metres_per_degree(lat: float) -> tuple[float, float]:
    """Return the (north-south, east-west) length of a degree at a latitude, in metres.

    Source: radii of curvature of the WGS 84 ellipsoid.
    """
    phi = math.radians(lat)
    flat = 1.0 - _ECCENTRICITY_SQUARED * math.sin(phi) ** 2
    meridian = _EQUATOR_RADIUS_M * (1.0 - _ECCENTRICITY_SQUARED) / flat**1.5
    return math.radians(meridian), math.radians(
        _EQUATOR_RADIUS_M / math.sqrt(flat) * max(math.cos(phi), 1e-6)
    )


def offsets_m(one: AuditedPatch, two: AuditedPatch) -> tuple[float, float]:
    """Return the (north, east) distance of two centres in metres.

    It is measured on the plane at their middle latitude, also across the date line.
    """
    north, east = metres_per_degree((one.lat + two.lat) / 2)
    return abs(two.lat - one.lat) * north, abs((two.lon - one.lon + 180.0) % 360.0 - 180.0) * east


def footprints_overlap(one: AuditedPatch, two: AuditedPatch, buffer_m: float = 0.0) -> bool:
    """Return whether two patches share ground, or lie less than `buffer_m` apart.

    Patches side by side do not overlap.
    """
    north, east = offsets_m(one, two)
    reach_north, reach_east = (one.height_m + two.height_m) / 2, (one.width_m + two.width_m) / 2
    tolerance = _TOLERANCE_M + _TOLERANCE * max(reach_north, reach_east)
    if north < reach_north - tolerance and east < reach_east - tolerance:
        return True
    return (
        math.hypot(max(north - reach_north, 0.0), max(east - reach_east, 0.0))
        < buffer_m - tolerance
    )


class Index:
    """Labelled patches, found by place and by hash without comparing each."""

    def __init__(
        self, patches: Iterable[AuditedPatch], buffer_m: float, max_hash_distance: int
    ) -> None:
        """Hold the labelled patches in memory.

        Args:
            patches: labelled ones.
            buffer_m: patches closer than this overlap.
            max_hash_distance: patches whose hashes differ in at most this many bits
                overlap.
        """
        self.patches = list(patches)
        self._buffer_m = buffer_m
        self._half_m = max((max(s.height_m, s.width_m) / 2 for s in self.patches), default=0.0)
        # A cell is as large as the reach of a patch: a look-up then visits few cells,
        # and a cell holds few patches.
        self._cell_degrees = max(2 * self._half_m + buffer_m, 100.0) / 111_195.0
        self._by_cell: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, found in enumerate(self.patches):
            row = math.floor(found.lat / self._cell_degrees)
            columns = self._num_columns(row)
            self._by_cell[row, math.floor((found.lon + 180.0) / 360.0 * columns) % columns].append(
                number
            )
        self._hashes = HashIndex([found.hash for found in self.patches], max_hash_distance)

    def overlaps(self, pairs: Sequence[AuditedPatch]) -> list[list[Overlap]]:
        """Return, for each of `pairs`, all labelled patches of the same ground, by id.

        Some hundreds of pairs at a time are fastest.
        """
        alike: dict[int, dict[int, int]] = defaultdict(dict)
        for match in self._hashes.alike([pair.hash for pair in pairs]):
            alike[match.query][match.held] = match.distance
        return [self._overlaps(pair, alike.get(query, {})) for query, pair in enumerate(pairs)]

    def _overlaps(self, pair: AuditedPatch, alike: Mapping[int, int]) -> list[Overlap]:
        numbers = {n for cell in self._cells(pair) for n in self._by_cell.get(cell, ())}
        near = {n for n in numbers if footprints_overlap(pair, self.patches[n], self._buffer_m)}
        found = [
            Overlap(
                pair_patch_id=pair.patch_id,
                label_patch_id=self.patches[number].patch_id,
                label_split=self.patches[number].split,
                distance_m=round(math.hypot(*offsets_m(pair, self.patches[number])), 1),
                footprints_overlap=number in near,
                hash_distance=alike.get(number),
            )
            for number in near | set(alike)
        ]
        return sorted(found, key=lambda overlap: overlap.label_patch_id)

    def _num_columns(self, row: int) -> int:
        """Return the number of cells in a row of latitude.

        Rows have fewer cells towards the poles, so that cells stay about square. The
        last cell of a row ends at the date line.
        """
        middle = math.radians(min(abs((row + 0.5) * self._cell_degrees), 90.0))
        return max(1, math.floor(360.0 * math.cos(middle) / self._cell_degrees))

    def _cells(self, pair: AuditedPatch) -> Iterator[tuple[int, int]]:
        """Yield the cells where an overlapping labelled patch can have its centre."""
        reach_m = max(pair.height_m, pair.width_m) / 2 + self._half_m + self._buffer_m
        # Add 1 %, since the plane of `offsets_m` lies at another latitude.
        north = 1.01 * reach_m / metres_per_degree(pair.lat)[0]
        furthest = min(abs(pair.lat) + north, 90.0)
        east = min(1.01 * reach_m / metres_per_degree(furthest)[1], 180.0)
        low, high = (math.floor((pair.lat + sign * north) / self._cell_degrees) for sign in (-1, 1))
        for row in range(low, high + 1):
            columns = self._num_columns(row)
            first, last = (
                math.floor((pair.lon + sign * east + 180.0) / 360.0 * columns) for sign in (-1, 1)
            )
            for column in range(first, min(last, first + columns - 1) + 1):
                yield row, column % columns


class HashMatch(NamedTuple):
    """Two hashes that are alike.

    Attributes:
        query: number of the given hash.
        held: number of the hash in the index.
        distance: bits in which the two differ.
    """

    query: int
    held: int
    distance: int


class HashIndex:
    """Hashes that are found by another hash that differs in few bits.

    Each hash is cut into one part more than the number of bits that may differ. Two
    hashes that are alike then share at least one part. Smooth images often share parts,
    so candidates are compared in bulk.
    """

    def __init__(self, hashes: Sequence[int | None], max_distance: int) -> None:
        """Hold `hashes`; None is never found."""
        self._max_distance = max_distance
        # A part may have more bits than an integer, so its key is a sum of random
        # weights. A chance hit does no harm, since candidates are compared.
        self._weights = np.random.default_rng(0).integers(1, 2**63, HASH_BITS, dtype=np.uint64)
        self._edges = [HASH_BITS * part // (max_distance + 1) for part in range(max_distance + 2)]
        self._numbers = np.array(
            [n for n, value in enumerate(hashes) if value is not None], np.int64
        )
        self._words = _words([value for value in hashes if value is not None])
        self._tables = []
        for keys in self._keys(self._words):
            order = np.argsort(keys, kind="stable")
            self._tables.append((keys[order], order))

    def alike(self, hashes: Sequence[int | None]) -> set[HashMatch]:
        """Return all pairs of a given hash and a held hash that are alike."""
        queries = np.array([n for n, value in enumerate(hashes) if value is not None], np.int64)
        words = _words([value for value in hashes if value is not None])
        found: set[HashMatch] = set()
        for (table, order), keys in zip(self._tables, self._keys(words), strict=True):
            first = np.searchsorted(table, keys, "left")
            counts = np.searchsorted(table, keys, "right") - first
            # Many hashes may share a part: compare a bounded number of candidates at a
            # time.
            groups = np.cumsum(counts) // _MAX_CANDIDATES
            for group in np.unique(groups):
                chosen = np.flatnonzero(groups == group)
                query = np.repeat(chosen, counts[chosen])
                starts = np.repeat(np.cumsum(counts[chosen]) - counts[chosen], counts[chosen])
                held = order[
                    np.repeat(first[chosen], counts[chosen]) + np.arange(query.size) - starts
                ]
                distance = _NUM_BITS[words[query] ^ self._words[held]].sum(axis=1)
                close = distance <= self._max_distance
                rows = (queries[query[close]], self._numbers[held[close]], distance[close])
                found.update(map(HashMatch, *(row.tolist() for row in rows)))
        return found

    def _keys(self, words: npt.NDArray[np.uint16]) -> Iterator[npt.NDArray[np.uint64]]:
        """Yield, for each part, one key per hash."""
        bits = np.unpackbits(words.view(np.uint8), axis=1).astype(np.uint64)
        for low, high in itertools.pairwise(self._edges):
            yield (bits[:, low:high] * self._weights[low:high]).sum(axis=1)


_NUM_BITS = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)
"""Number of set bits, for every 16-bit number."""
_MAX_CANDIDATES = 1_000_000
"""Candidates that are compared at once: about 50 MB."""


def _words(hashes: Sequence[int]) -> npt.NDArray[np.uint16]:
    """Return hashes as uint16 [N, 8]."""
    raw = b"".join(value.to_bytes(HASH_BITS // 8, "big") for value in hashes)
    return np.frombuffer(raw, np.uint16).reshape(-1, HASH_BITS // 16)
