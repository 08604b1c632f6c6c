"""Layouts: which folder is which data set, and the reader of each.

Input: a folder. Output: the name of its layout, or the reader that yields its STAC items. Called by `catalogs.py` and the
`catalog` command; a new data set is one more module and one more entry in READERS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pystac

from beam_jobs.config import FolderLayout
from beam_jobs.errors import DataError
from beam_jobs.public_datasets import bigearthnet, ee_timeseries, sen1floods11, sen12ms, ssl4eo, terramesh

READERS: dict[FolderLayout, Callable[[Path], Iterator[pystac.Item]]] = {
    "terramesh": terramesh.read,
    "bigearthnet": bigearthnet.read,
    "sen1floods11": sen1floods11.read,
    "sen12ms": sen12ms.read_sen12ms,
    "dfc2020": sen12ms.read_dfc2020,
    "ssl4eo": ssl4eo.read,
    "ee_timeseries": ee_timeseries.read,
}


def detect(folder: Path) -> FolderLayout | None:
    """The layout of a folder, or None when it has none that is known."""
    if (folder / "S1RTC").is_dir() and ((folder / "S2L1C").is_dir() or (folder / "S2L2A").is_dir()):
        return "terramesh"
    if (folder / "s1").is_dir() and (folder / "s2").is_dir():
        return "bigearthnet"
    if (folder / "s1").is_dir() and ((folder / "s2c").is_dir() or (folder / "s2a").is_dir()):
        return "ssl4eo"
    if (folder / "data" / "flood_events").is_dir():
        return "sen1floods11"
    if sen12ms.season_folders(folder):
        return "sen12ms"
    if sen12ms.dfc2020_folders(folder):
        return "dfc2020"
    return "ee_timeseries" if _holds_time_series(folder) else None


def _holds_time_series(folder: Path) -> bool:
    """Whether the first raster of the folder has bands of a second step."""
    first = next(iter(sorted(folder.glob("*.tif"))), None)
    if first is None:
        return False
    try:
        return max(ee_timeseries.band_steps(first), default=0) > 0
    except DataError:
        # A folder is only being looked at here; a broken raster is reported by whoever reads it.
        return False
