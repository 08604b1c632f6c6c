"""Splits: place -> spatial block -> train, eval or test. Pure functions.

A block's split is a hash of its id, so it is the same in every job, span and worker.
Labelled patches of a place fall into the same split as the unlabeled pairs there.
Scenes keep the split that their data set published, and hold-outs override both.
For a cross-validation a lattice gives each block a fold, and the fold gives the split.
docs/splits.md explains why.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from shapely.geometry import box

from beam_jobs.config import SplitConfig
from beam_jobs.contracts.layout import SPLITS
from beam_jobs.contracts.reasons import PatchReason, Refusal
from beam_jobs.contracts.records import HOLDOUT_MARK
from beam_jobs.judging import holdouts

KM_PER_DEGREE = 111.195
"""Length of a degree of latitude on a sphere of radius 6371.0 km."""
_ZONE_DEGREES = 6.0
"""Width of the zones of longitude in which columns of blocks are counted for folds.

Rows have columns of different width. Columns counted from Greenwich would be shifted by
up to three blocks from one row to the next, and narrow areas would lose folds.
"""
_LEAST_KM_PER_DEGREE = 110.57
"""Length of a degree of latitude at the equator of WGS 84, where it is shortest.

Reaches in degrees that are computed with it are never too small.
"""

Box = tuple[float, float, float, float]
"""west, south, east, north in degrees; across the date line below -180 or above 180."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Where a patch goes.

    Attributes:
        block: id of the block of its centre, with the names of the hold-outs that it
            falls under.
        split: "train", "eval" or "test"; None when it is left out.
        reason: why it is left out; None when it is kept.
        detail: the same in one line for a person.
    """

    block: str
    split: str | None
    reason: PatchReason | None = None
    detail: str = ""

    @property
    def refusal(self) -> Refusal | None:
        """The reason and the detail why the patch is left out; None when it is kept."""
        return None if self.reason is None else (self.reason, self.detail)


def block_id(lon: float, lat: float, block_size_km: float) -> str:
    """Return the id of the block that holds a place.

    Blocks form rows of latitude. The width of a row's columns depends on the cosine of
    its latitude. The id does not depend on CRS or scene, so places on both sides of a
    UTM border get the same block.
    """
    step = block_size_km / KM_PER_DEGREE
    row = math.floor(lat / step)
    return f"{block_size_km:g}km_{row}_{math.floor(lon / _column_step(row, step))}"


def _column_step(row: int, step: float) -> float:
    # Use the row's latitude, not the place's: all columns of a row must have one width.
    return step / max(math.cos(math.radians((row + 0.5) * step)), 1e-3)


def split_of(block: str, config: SplitConfig) -> str:
    """Return the split of a block: "train", "eval" or "test".

    With folds it is "test" for blocks of `config.fold`, "eval" for those of the next
    fold, and "train" for all others. Otherwise it is a hash of the block's id.
    """
    if config.folds:
        distance = (fold_of(block, config) - config.fold) % config.folds
        return {0: "test", 1: "eval"}.get(distance, "train")
    digest = hashlib.sha256(f"{config.seed}|{block}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    if position < config.test_fraction:
        return "test"
    return "eval" if position < config.test_fraction + config.eval_fraction else "train"


def fold_of(block: str, config: SplitConfig) -> int:
    """Return the fold of a block, 0 to `config.folds` - 1.

    A hash would leave folds empty where labels cover few blocks. So the folds form a
    lattice: they follow each other along a row, and each row begins `_row_step` folds
    after the row below it. Of `config.folds` blocks side by side, each belongs to
    another fold. Of 300 square areas of two blocks' width (4 to 9 blocks, latitudes to
    60 degrees), 92 % had all five folds; by a hash 27 %.

    The lattice begins anew every 6 degrees of longitude.
    """
    _, row_text, column_text = block.rsplit("_", 2)
    row, column = int(row_text), int(column_text)
    width = _column_step(row, config.block_size_km / KM_PER_DEGREE)
    zone = math.floor((column + 0.5) * width / _ZONE_DEGREES)
    middle = math.floor((zone + 0.5) * _ZONE_DEGREES / width)
    return (column - middle + _row_step(config.folds, config.seed) * row) % config.folds


@lru_cache(maxsize=64)
def _row_step(folds: int, seed: int) -> int:
    """Return by how many folds a row is shifted against the row below it.

    A step has no common divisor with `folds`, so that every fold occurs in a column of
    blocks, too. The best step puts the blocks of one fold as far apart as possible: a
    river along a line of blocks must not be in one fold alone. `seed` counts on from
    the best step.
    """

    def spread(step: int) -> int:
        offsets = itertools.product(range(folds + 1), range(-folds, folds + 1))
        return min(
            row**2 + column**2
            for row, column in offsets
            if (row, column) != (0, 0) and (column + step * row) % folds == 0
        )

    steps = [step for step in range(1, folds) if math.gcd(step, folds) == 1]
    return sorted(steps, key=lambda step: (-spread(step), step))[seed % len(steps)]


def assign(
    lon: Sequence[float],
    lat: Sequence[float],
    config: SplitConfig,
    declared: frozenset[str] = frozenset(),
    held_out: frozenset[str] = frozenset(),
) -> Assignment:
    """Return block and split of a patch, from its own place alone.

    Hold-outs decide first. Then comes the split that the scenes declare, since scores
    on a public data set are comparable only on its own split. Then the blocks decide.

    A patch is left out as `straddles_splits` when its blocks, or the declared splits,
    disagree: two such patches of different scenes could share pixels across train and
    test. It is left out as `in_buffer` when a more important split is closer than the
    buffer. Train gives way to eval and test, and eval to test, so that the few patches
    for measurement stay.

    Folds divide what is not set aside. A patch that touches a hold-out, or that a data
    set declares as test, is left out as `outside_folds`. Other declared splits do not
    count, and the blocks decide.

    Args:
        lon: longitudes of centre and corners, degrees.
        lat: latitudes of centre and corners, degrees.
        config: of the split.
        declared: the splits that the patch's scenes declare, if any.
        held_out: names of the hold-outs that its scenes fall under, if any.
    """
    block = block_id(lon[0], lat[0], config.block_size_km)
    regions, is_inside = _regions(_bounds(lon, lat, 0.0), config)
    names = held_out | regions
    label = HOLDOUT_MARK.join((block, *sorted(names)))
    if config.folds:
        if names or "test" in declared:
            why = f"is held out by {', '.join(sorted(names))}" if names else "is declared as test"
            return Assignment(block=label, split=None, reason="outside_folds", detail=why)
        declared = frozenset()
    found: set[str] = {holdout.split for holdout in config.holdouts if holdout.name in names}
    # All patches of a held-out scene are held out. A held-out region only decides for
    # patches that lie wholly inside.
    if not held_out and not is_inside:
        blocks = {block_id(x, y, config.block_size_km) for x, y in zip(lon, lat, strict=True)}
        found |= set(declared) or {split_of(one, config) for one in blocks}
    if len(found) > 1:
        why = f"its scenes declare {' and '.join(sorted(declared))}"
        if len(declared) < 2:
            why = f"reaches from block {label} into one of another split"
        return Assignment(block=label, split=None, reason="straddles_splits", detail=why)
    (split,) = found
    nearer = _splits_within_reach(lon, lat, config, blocks_too=not held_out and not declared)
    above = [one for one in SPLITS[SPLITS.index(split) + 1 :] if one in nearer]
    if above:
        detail = (
            f"block {label} of {split} is within {config.buffer_m:g} m of {' and '.join(above)}"
        )
        return Assignment(block=label, split=None, reason="in_buffer", detail=detail)
    return Assignment(block=label, split=split)


def _splits_within_reach(
    lon: Sequence[float], lat: Sequence[float], config: SplitConfig, blocks_too: bool
) -> set[str]:
    """Return the splits of regions and blocks that are nearer than the buffer.

    The set is empty without a buffer.
    """
    if config.buffer_m == 0:
        return set()
    reach = _bounds(lon, lat, config.buffer_m)
    regions, is_inside = _regions(reach, config)
    found: set[str] = {holdout.split for holdout in config.holdouts if holdout.name in regions}
    if blocks_too and not is_inside:
        found |= {
            _cached_split(block, config)
            for piece in _pieces(reach)
            for block in _blocks(piece, config)
        }
    return found


def _bounds(lon: Sequence[float], lat: Sequence[float], reach_m: float) -> Box:
    """Return the box around the points, at least `reach_m` larger on every side."""
    # Measure relative to the centre, so that a patch on the date line is not 360
    # degrees wide.
    east = [(x - lon[0] + 180.0) % 360.0 - 180.0 for x in lon]
    degrees = reach_m / 1000.0 / _LEAST_KM_PER_DEGREE
    south, north = max(min(lat) - degrees, -90.0), min(max(lat) + degrees, 90.0)
    # A degree of longitude is shortest where the box is nearest to a pole.
    sideways = min(degrees / max(math.cos(math.radians(max(abs(south), abs(north)))), 1e-3), 180.0)
    return lon[0] + min(east) - sideways, south, lon[0] + max(east) + sideways, north


def _pieces(bounds: Box) -> list[Box]:
    """Return the box, cut at the date line."""
    west, south, east, north = bounds
    if west < -180.0:
        return [(west + 360.0, south, 180.0, north), (-180.0, south, east, north)]
    if east > 180.0:
        return [(west, south, 180.0, north), (-180.0, south, east - 360.0, north)]
    return [bounds]


def _blocks(piece: Box, config: SplitConfig) -> Iterator[str]:
    """Yield the ids of the blocks that a box touches."""
    west, south, east, north = piece
    step = config.block_size_km / KM_PER_DEGREE
    for row in range(math.floor(south / step), math.floor(north / step) + 1):
        column_step = _column_step(row, step)
        for column in range(math.floor(west / column_step), math.floor(east / column_step) + 1):
            yield f"{config.block_size_km:g}km_{row}_{column}"


# Neighbouring patches ask for the same blocks.
_cached_split = lru_cache(maxsize=4096)(split_of)


def _regions(bounds: Box, config: SplitConfig) -> tuple[frozenset[str], bool]:
    """Return (hold-outs whose region the box touches, whether one holds all of it)."""
    touched, is_inside = set(), False
    for holdout in config.holdouts:
        if holdout.geojson:
            region = holdouts.region(holdout)
            pieces = [box(*piece) for piece in _pieces(bounds)]
            if any(region.intersects(piece) for piece in pieces):
                touched.add(holdout.name)
                is_inside = is_inside or all(region.covers(piece) for piece in pieces)
    return frozenset(touched), is_inside
