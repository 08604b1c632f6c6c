"""Splits: place -> spatial block -> train, eval or test. Pure functions; never a split by row.

A block's split is a hash of its id, so it stays the same in every job, span and worker, and labelled patches of a place
fall into the same split as the unlabeled pairs there. Scenes that declare the split their data set published keep it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from beam_jobs.config import SplitConfig

KM_PER_DEGREE = 111.195
"""Length of a degree of latitude on a sphere of radius 6371.0 km."""


def block_id(lon: float, lat: float, block_size_km: float) -> str:
    """Id of the block that holds a place: rows of latitude, columns that shrink with the cosine of their row.

    Independent of CRS and scene, so places near a UTM border get one block, not two.
    """
    step = block_size_km / KM_PER_DEGREE
    row = math.floor(lat / step)
    # The row's own latitude, not the place's: all of a row must share one column width.
    column_step = step / max(math.cos(math.radians((row + 0.5) * step)), 1e-3)
    return f"{block_size_km:g}km_{row}_{math.floor(lon / column_step)}"


def split_of(block: str, config: SplitConfig) -> str:
    """The split of a block: "train", "eval" or "test"."""
    digest = hashlib.sha256(f"{config.seed}|{block}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    if position < config.test_fraction:
        return "test"
    return "eval" if position < config.test_fraction + config.eval_fraction else "train"


def assign(
    lon: Sequence[float], lat: Sequence[float], config: SplitConfig, declared: frozenset[str] = frozenset()
) -> tuple[str, str | None]:
    """(block of the centre, split) of a patch given by its centre and corners, degrees.

    Args:
        lon: of centre and corners.
        lat: likewise.
        config: of the split.
        declared: the splits that the patch's scenes declare, if any. They go before the blocks: scores on a public data
            set compare with others only on its own split. The block is told all the same.

    The split is None when the patch reaches into blocks of different splits, or its scenes declare different ones: two
    such patches of different scenes could share pixels across train and test.
    """
    blocks = [block_id(x, y, config.block_size_km) for x, y in zip(lon, lat, strict=True)]
    found = set(declared) or {split_of(block, config) for block in blocks}
    return blocks[0], found.pop() if len(found) == 1 else None
