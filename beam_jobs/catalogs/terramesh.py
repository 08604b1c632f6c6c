"""TerraMesh as GeoTIFFs: S1RTC, S2L1C, S2L2A and LULC, one file per place in each.

Input: the folder. Output: STAC items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import pystac

from beam_jobs.catalogs import items
from beam_jobs.config import ProcessingLevel
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster


@dataclass(frozen=True, kw_only=True)
class _Level:
    """A processing level of Sentinel-2.

    Attributes:
        name: of the level.
        bands: in the order of the files.
        dn_offset: the 2022 offset of its files; None if the pixels must show it.
    """

    name: ProcessingLevel
    bands: tuple[str, ...]
    dn_offset: int | None


_LEVELS = (
    _Level(name="L1C", bands=S2_L1C_BANDS, dn_offset=None),
    _Level(name="L2A", bands=S2_L2A_BANDS, dn_offset=0),
)


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of a folder in the TerraMesh layout.

    The files name neither bands nor dates. Bands have the order of the data set's
    description. The radar's time is the `datetime` tag of S1RTC, the optical one that
    of LULC. L2A files carry no offset. The pixels of an L1C file must show whether it
    does, because reprocessed files of any date may.

    Source: https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh
    """
    for path in sorted((folder / "S1RTC").glob("*.tif")):
        assets = {"data": items.asset(path, S1_DEFAULT_BANDS)}
        yield items.item(
            f"S1RTC_{path.stem}", path, partial(_tag_time, path), items.radar(), assets
        )
    for level in _LEVELS:
        for path in sorted((folder / f"S2{level.name}").glob("*.tif")):
            label = folder / "LULC" / path.name
            # Id 0 of the data set means no data.
            assets = {
                "data": items.asset(path, level.bands),
                "label": items.label(label, "terramesh_lulc", 0),
            }
            properties = items.optical(level.name, level.dn_offset)
            yield items.item(
                f"S2{level.name}_{path.stem}", path, partial(_tag_time, label), properties, assets
            )


def _tag_time(path: Path) -> datetime:
    if not path.exists():
        raise DataError(f"{path}: is missing, and the scene's time is in it", "missing_file")
    with open_raster(str(path)) as dataset:
        text = dataset.tags().get("datetime")
    if not text:
        raise DataError(f"{path}: lacks the tag 'datetime' of the TerraMesh layout", "bad_item")
    # Python's datetime cannot read the nanoseconds of the tags.
    return items.utc_time(text.split(".")[0], "the tag 'datetime'", path)
