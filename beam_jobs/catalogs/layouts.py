"""Layouts: which folder is which data set, and the reader of each.

Input: a folder. Output: the name of its layout, or its STAC items. A new data set is
one more module and one more entry in `_READERS` and SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pystac

from beam_jobs.catalogs import (
    bigearthnet,
    dfc2020,
    ee_tfrecord,
    ee_timeseries,
    sen1floods11,
    sen12ms,
    ssl4eo,
    stac_items,
    terramesh,
    zarr_shards,
)
from beam_jobs.config import FolderLayout
from beam_jobs.errors import DataError

Reader = Callable[[Path], Iterator[pystac.Item]]

SOURCES: dict[FolderLayout, tuple[str, str]] = {
    "terramesh": ("TerraMesh", "CC-BY-SA-4.0"),
    "bigearthnet": ("BigEarthNet", "CDLA-Permissive-1.0"),
    "sen1floods11": ("Sen1Floods11", "CC-BY-4.0"),
    "sen12ms": ("SEN12MS", "unknown"),
    "dfc2020": ("DFC2020", "unknown"),
    "ssl4eo": ("SSL4EO-S12", "CC-BY-4.0"),
    "ssl4eo_v11": ("SSL4EO-S12 v1.1", "CC-BY-4.0"),
    "terramesh_shards": ("TerraMesh", "CC-BY-SA-4.0"),
    "ee_timeseries": ("Earth Engine export", "unknown"),
    "ee_tfrecord": ("Earth Engine export", "unknown"),
    "stac_items": ("STAC items", "unknown"),
}
"""Name and licence of each data set, for the data card.

The licence is "unknown" where the publisher's text was not available.

Source: https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh,
https://bigearth.net, https://github.com/cloudtostreet/Sen1Floods11,
https://huggingface.co/datasets/wangyi111/SSL4EO-S12.
"""


def _with_source(layout: FolderLayout, read: Reader) -> Reader:
    """Return the reader with source and licence added to items that declare none."""

    def read_with_source(folder: Path) -> Iterator[pystac.Item]:
        source, terms = SOURCES[layout]
        for item in read(folder):
            item.properties.setdefault("terrapair:source", source)
            item.properties.setdefault("license", terms)
            yield item

    return read_with_source


_WITH_LISTS: dict[FolderLayout, Callable[[Path, Sequence[Path]], Iterator[pystac.Item]]] = {
    "sen12ms": sen12ms.read_sen12ms,
    "dfc2020": dfc2020.read,
}
_READERS: dict[FolderLayout, Reader] = {
    "terramesh": terramesh.read,
    "bigearthnet": bigearthnet.read,
    "sen1floods11": sen1floods11.read,
    "sen12ms": sen12ms.read_sen12ms,
    "dfc2020": dfc2020.read,
    "ssl4eo": ssl4eo.read,
    "ssl4eo_v11": zarr_shards.read_ssl4eo_v11,
    "terramesh_shards": zarr_shards.read_terramesh_shards,
    "ee_timeseries": ee_timeseries.read,
    "ee_tfrecord": ee_tfrecord.read,
    "stac_items": stac_items.read,
}
_MAX_DETECTED = 20
"""Rasters that are opened to find out whether a folder holds exports."""
READERS = {layout: _with_source(layout, reader) for layout, reader in _READERS.items()}


def read(
    layout: FolderLayout, folder: Path, split_lists: Sequence[Path] = ()
) -> Iterator[pystac.Item]:
    """Yield the items of a folder in a layout.

    Args:
        layout: of the folder.
        folder: where it is.
        split_lists: lists of scenes or patches of a split, for "sen12ms" and "dfc2020"
            only.
    """
    if layout in _WITH_LISTS:
        return _with_source(layout, lambda root: _WITH_LISTS[layout](root, split_lists))(folder)
    return READERS[layout](folder)


def detect(folder: Path) -> FolderLayout | None:
    """Return the layout of a folder, or None if it is unknown."""
    if dfc2020.folders(folder):
        return "dfc2020"
    modalities = zarr_shards.modalities(folder)
    if "S1RTC" in modalities or "LULC" in modalities:
        return "terramesh_shards"
    if "S1GRD" in modalities:
        return "ssl4eo_v11"
    if (folder / "S1RTC").is_dir() and ((folder / "S2L1C").is_dir() or (folder / "S2L2A").is_dir()):
        return "terramesh"
    if (folder / "s1").is_dir() and (folder / "s2").is_dir():
        # Exports that are parted by sensor have the same names of folders.
        return None if any((folder / "s1").glob("*.tif")) else "bigearthnet"
    if (folder / "s1").is_dir() and ((folder / "s2c").is_dir() or (folder / "s2a").is_dir()):
        return "ssl4eo"
    if (folder / "data" / "flood_events").is_dir():
        return "sen1floods11"
    if sen12ms.season_folders(folder):
        return "sen12ms"
    if stac_items.holds_items(folder):
        return "stac_items"
    if ee_tfrecord.holds_exports(folder):
        return "ee_tfrecord"
    return "ee_timeseries" if _holds_exports(folder) else None


def _holds_exports(folder: Path) -> bool:
    """Return whether one of the first rasters is an export of Earth Engine.

    It has bands of a second step or of named images, or bands of one image and a time
    or days in its own name.
    """
    return any(map(_is_export, sorted(folder.glob("*.tif"))[:_MAX_DETECTED]))


def _is_export(path: Path) -> bool:
    stem, _, band = path.stem.rpartition(".")
    try:
        steps = ee_timeseries.band_steps([band] if stem else ()) or ee_timeseries.band_steps(
            ee_timeseries.band_places(path)
        )
    except DataError:
        # This only detects the layout: the reader reports a broken raster.
        return False
    return bool(set(steps) - {0}) or (set(steps) == {0} and ee_timeseries.num_days(path.stem) > 0)
