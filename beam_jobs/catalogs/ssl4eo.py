"""SSL4EO-S12 v1: four seasons per location, patches of 264 px.

Input: the folder with {s1,s2c,s2a}/<location>/<granule>/<band>.tif. Output: STAC items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pystac

from beam_jobs.catalogs import items
from beam_jobs.config import ProcessingLevel
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError

OFFSET_FROM = datetime(2022, 1, 25, tzinfo=timezone.utc)
"""First day of processing baseline 04.00.

Source: `beam_jobs.contracts.bands.S2_BASELINE_0400_DN_OFFSET`.
"""

_TIME = re.compile(r"\d{8}T\d{6}")


@dataclass(frozen=True, kw_only=True)
class _Level:
    """A folder of Sentinel-2 granules, with their processing level and bands."""

    folder: str
    level: ProcessingLevel
    bands: tuple[str, ...]


_LEVELS = (
    _Level(folder="s2c", level="L1C", bands=S2_L1C_BANDS),
    _Level(folder="s2a", level="L2A", bands=S2_L2A_BANDS),
)


def read(folder: Path) -> Iterator[pystac.Item]:
    """Yield the items of an SSL4EO-S12 v1 folder, one per granule and location.

    The location is part of the id. Times are in the granules' names. Sensors of one
    season are up to 30 days apart: set pairing.max_time_gap_hours to 720 to pair them
    all. Missing radar pixels are 0 in both polarizations, which the readers take as no
    data.

    Raises:
        DataError: a granule's name has no time.

    Source: https://github.com/zhu-xlab/SSL4EO-S12 (v1); arXiv 2211.07044.
    """
    for granule in _granules(folder / "s1"):
        platform = {"platform": f"sentinel-{granule.name[1:3].lower()}"}
        yield _item(granule, S1_DEFAULT_BANDS, "VV", items.radar(platform))
    for level in _LEVELS:
        for granule in _granules(folder / level.folder):
            # Earlier images were not reprocessed in the source archive. The pixels of
            # later ones must show the offset.
            dn_offset = 0 if _acquired_at(granule) < OFFSET_FROM else None
            yield _item(granule, level.bands, "B2", items.optical(level.level, dn_offset))


def _granules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.is_dir())


def _item(
    granule: Path, bands: tuple[str, ...], reference: str, properties: dict[str, Any]
) -> pystac.Item:
    location, level = granule.parent.name, granule.parents[1].name
    assets = {name: items.asset(granule / f"{name}.tif") for name in bands}
    # A granule covers many locations, and a location has both levels of a granule.
    item_id = f"{level}_{location}_{granule.name}"
    return items.item(
        item_id, granule / f"{reference}.tif", _acquired_at(granule), properties, assets
    )


def _acquired_at(granule: Path) -> datetime:
    """Return the first time in the granule's name: the begin of its acquisition."""
    match = _TIME.search(granule.name)
    if match is None:
        raise DataError(f"{granule}: its name needs a time, as in 20200604T054639", "bad_item")
    try:
        return datetime.strptime(match[0], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise DataError(
            f"{granule}: the time in its name, {match[0]}, is not valid: {error}", "bad_item"
        ) from error
