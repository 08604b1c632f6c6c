"""Products: which satellite, level, baseline and acquisition an item declares.

Input: the properties of a STAC item, as catalogs spell them. Output: one spelling for
each. Pure functions of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from beam_jobs.errors import DataError

Level = Literal["L1C", "L2A"]

_SATELLITE = re.compile(r"(?:copernicus-)?(?:sentinel-?|s)([12])-?[abcd]?")
_LEVEL = re.compile(r"(?:S2MSI|LEVEL-?|L)?([12][AC])(?:P)?")
_BASELINE = re.compile(r"N?(\d{2})\.?(\d{2})")
_BASELINE_OF_PRODUCT = re.compile(r"_N(\d{2})(\d{2})_")
_DATATAKE = re.compile(r"G?(S2[A-D])_(?:MSIL(?:1C|2A)_)?(\d{8}T\d{6})_")
_TILE = re.compile(r"(?:^|MGRS-|_T|^T)(\d{1,2})([C-X][A-Z]{2})(?:_|\.|$)")


def constellation_of(properties: Mapping[str, Any]) -> str:
    """Return "sentinel-1" or "sentinel-2", else what the item says, in lower case.

    `constellation` goes first. If it is absent or unknown, `platform` tells. All common
    spellings are understood: Sentinel-2, "Sentinel 2", SENTINEL2, S2A, sentinel-2b.
    """
    named = [str(properties.get(key) or "").lower() for key in ("constellation", "platform")]
    known = [found for found in map(_satellite, named) if found]
    return known[0] if known else next((name for name in named if name), "")


def platform_of(properties: Mapping[str, Any]) -> str:
    """Return "sentinel-1" or "sentinel-2" if `platform` names one of them, else ""."""
    return _satellite(str(properties.get("platform") or "").lower())


def _satellite(name: str) -> str:
    found = _SATELLITE.fullmatch(re.sub(r"[\s_-]+", "-", name.strip()))
    return f"sentinel-{found[1]}" if found else ""


def processing_level(properties: Mapping[str, Any], collection: str | None, where: str) -> Level:
    """Return the level of a Sentinel-2 product.

    `processing:level` goes first. Without it, or where it says only L1 or L2, the type
    of the product (`s2:product_type`, `product:type`) or the collection tells.

    Raises:
        DataError: none of them tells the level, or they contradict each other.

    Source: the items of Earth Search, Planetary Computer and the Copernicus Data Space.
    """
    declared = str(properties.get("processing:level") or "").upper().replace(" ", "")
    level = _level(declared)
    if level:
        return level
    others: Iterable[object] = (
        properties.get("s2:product_type"),
        properties.get("product:type"),
        *re.split(r"[^A-Za-z0-9]+", collection or ""),
    )
    found = next((name for name in map(_level, map(str, others)) if name), None)
    if found and declared in ("", found[:2], found[1], f"LEVEL-{found[1]}"):
        return found
    raise DataError(
        f"{where}: processing:level must be L1C or L2A, "
        f"got {properties.get('processing:level', 'none')!r}",
        "bad_item",
    )


def _level(text: str) -> Level | None:
    found = _LEVEL.fullmatch(text.upper())
    if found is None or found[1] not in ("1C", "2A"):
        return None
    return "L1C" if found[1] == "1C" else "L2A"


def processing_baseline(properties: Mapping[str, Any], where: str) -> str | None:
    """Return the processing baseline of a Sentinel-2 product as "NN.NN", or None.

    The first of `s2:processing_baseline`, `processing:version` and the name of the
    product (`s2:product_uri`, `sentinel:product_id`, N0509) that gives one is taken.
    `processing:version` of another form is the version of a program and is ignored.

    Raises:
        DataError: `s2:processing_baseline` is no baseline.

    Source: https://github.com/stac-extensions/sentinel-2;
    https://github.com/stac-extensions/processing; ESA, Sentinel-2 Products
    Specification Document, naming of products.
    """
    declared = properties.get("s2:processing_baseline")
    found = _BASELINE.fullmatch(str(declared))
    if declared is not None and found is None:
        raise DataError(
            f"{where}: s2:processing_baseline must be as 05.09, got {declared!r}", "bad_item"
        )
    found = (
        found
        or _BASELINE.fullmatch(str(properties.get("processing:version")))
        or _BASELINE_OF_PRODUCT.search(str(properties.get("s2:product_uri")))
        or _BASELINE_OF_PRODUCT.search(str(properties.get("sentinel:product_id")))
    )
    return f"{found[1]}.{found[2]}" if found else None


def is_offset_applied(properties: Mapping[str, Any]) -> bool | None:
    """Return whether the catalog removed the offset itself; None if it does not say.

    Source: https://github.com/Element84/earth-search, Sentinel-2 collections of v1 and
    v0.
    """
    declared = map(
        properties.get, ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
    )
    return next((value for value in declared if isinstance(value, bool)), None)


def acquisition(properties: Mapping[str, Any], item_id: str) -> str:
    """Return what all products of one Sentinel-2 datatake and tile share, or "".

    It is the satellite, the begin of the datatake and the tile, as in
    "S2A_20190212T192651_07HFE". It is "" when the item does not tell all of them.

    Source: ESA, Sentinel-2 Products Specification Document, naming of products.
    """
    names = [
        str(properties.get(key) or "")
        for key in ("s2:datatake_id", "eopf:datatake_id", "s2:product_uri", "sentinel:product_id")
    ]
    datatake = next((m for m in map(_DATATAKE.match, (*names, item_id)) if m), None)
    codes = [
        str(properties.get(key) or "")
        for key in (
            "grid:code",
            "s2:mgrs_tile",
            "s2:tile_id",
            "s2:product_uri",
            "sentinel:product_id",
        )
    ]
    tile = next((m for m in map(_TILE.search, (*codes, item_id)) if m), None)
    if datatake is None or tile is None:
        return ""
    return f"{datatake[1]}_{datatake[2]}_{int(tile[1]):02d}{tile[2]}"
