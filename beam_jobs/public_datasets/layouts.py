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

Reader = Callable[[Path], Iterator[pystac.Item]]

SOURCES: dict[FolderLayout, tuple[str, str]] = {
    "terramesh": ("TerraMesh", "CC-BY-SA-4.0"),
    "bigearthnet": ("BigEarthNet", "CDLA-Permissive-1.0"),
    "sen1floods11": ("Sen1Floods11", "CC-BY-4.0"),
    "sen12ms": ("SEN12MS", "unknown"),
    "dfc2020": ("DFC2020", "unknown"),
    "ssl4eo": ("SSL4EO-S12", "CC-BY-4.0"),
    "ee_timeseries": ("Earth Engine export", "unknown"),
}
"""Name and licence of each data set: what the data card tells. "unknown" where its publisher's word was not at hand.

Source: https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh, https://bigearth.net,
    https://github.com/cloudtostreet/Sen1Floods11, https://huggingface.co/datasets/wangyi111/SSL4EO-S12.
"""


def _with_source(layout: FolderLayout, read: Reader) -> Reader:
    """The reader, whose items also tell source and licence where they do not themselves."""

    def read_with_source(folder: Path) -> Iterator[pystac.Item]:
        source, terms = SOURCES[layout]
        for item in read(folder):
            item.properties.setdefault("terrapair:source", source)
            item.properties.setdefault("license", terms)
            yield item

    return read_with_source


_READERS: dict[FolderLayout, Reader] = {
    "terramesh": terramesh.read,
    "bigearthnet": bigearthnet.read,
    "sen1floods11": sen1floods11.read,
    "sen12ms": sen12ms.read_sen12ms,
    "dfc2020": sen12ms.read_dfc2020,
    "ssl4eo": ssl4eo.read,
    "ee_timeseries": ee_timeseries.read,
}
READERS = {layout: _with_source(layout, reader) for layout, reader in _READERS.items()}


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
