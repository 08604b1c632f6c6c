"""Band names: how catalogs and files spell the bands of Sentinel-1 and Sentinel-2.

Input: the key of an asset or the name of a band in any usual spelling. Output: the name
of the band as the rest of the project spells it (B4, B8A, VV), or None.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from beam_jobs.contracts.bands import BANDS, Sensor

COMMON_NAMES: dict[str, str] = {
    "coastal": "B1",
    "blue": "B2",
    "green": "B3",
    "red": "B4",
    "rededge1": "B5",
    "rededge071": "B5",
    "rededge2": "B6",
    "rededge075": "B6",
    "rededge3": "B7",
    "rededge078": "B7",
    "nir": "B8",
    "nir08": "B8A",
    "nir09": "B9",
    "cirrus": "B10",
    "swir16": "B11",
    "swir22": "B12",
}
"""Common name of a Sentinel-2 band -> band. `rededge` alone names three of them.

Source: https://github.com/stac-extensions/eo, common band names, versions 1 and 2; the
assets of Earth Search v1 (rededge1 to rededge3, nir09).
"""
_NUMBERED = re.compile(r"B0?(\d{1,2}A?)", re.IGNORECASE)
_VARIANT = re.compile(r"(?P<name>.+?)(?:_(?P<pixel>10|20|60)m)?(?P<original>-jp2)?", re.IGNORECASE)


def band_of(sensor: Sensor, *names: object) -> str | None:
    """Return the band that the first understood of `names` means, or None.

    B04, b4 and red are B4; vv is VV.
    """
    for name in names:
        numbered = _NUMBERED.fullmatch(str(name))
        found = f"B{numbered[1]}" if numbered else COMMON_NAMES.get(str(name).lower(), str(name))
        if found.upper() in BANDS[sensor]:
            return found.upper()
    return None


def variant_of(key: str) -> tuple[str, int | None, bool]:
    """Return (name, pixel size, is original) of the key of an asset.

    Catalogs offer one band at several pixel sizes (`B04_20m`), and as the agency's own
    JPEG 2000 file beside their copy of it (`red-jp2`).

    Returns:
        The key without these ends; the pixel size in metres, None if the key names
        none; whether it is the agency's own file.

    Source: the assets of Earth Search v1 and of the Copernicus Data Space.
    """
    found = _VARIANT.fullmatch(key)
    if found is None:
        return key, None, False
    pixel = int(found["pixel"]) if found["pixel"] else None
    return found["name"], pixel, bool(found["original"])


def bands_of(sensor: Sensor, names: Iterable[object]) -> list[str]:
    """Return the bands among `names` in their order, each as often as it is named."""
    return [band for band in (band_of(sensor, name) for name in names) if band]
