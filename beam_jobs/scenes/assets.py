"""Assets: where a scene's bands and cloud mask are stored, and in which units.

Input: a STAC item. Output: BandSources and the path of the cloud mask. The files
themselves are not opened here. `label_assets.py` does the same for labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pystac

from beam_jobs.contracts.bands import BANDS, S2_REFLECTANCE_PER_DN, Sensor
from beam_jobs.contracts.locations import Location
from beam_jobs.errors import DataError
from beam_jobs.rasters.mixer import MIXER_SUFFIX
from beam_jobs.scenes import hrefs
from beam_jobs.scenes.band_names import band_of, variant_of

Unit = Literal["", "dB", "power", "reflectance"]
UNITS: dict[Sensor, tuple[Unit, ...]] = {"s1": ("dB", "power"), "s2": ("reflectance",)}
"""Units that a band of each sensor may declare. "power" is linear backscatter."""
ARCHIVE_OFFSETS = (0.0, -0.1, -1000.0)
"""Values of `raster:offset` by which catalogs of Sentinel-2 mean the 2022 offset.

-0.1 is in reflectance and -1000 in digital numbers. They write it for pixels that have
the offset and for pixels from which it was removed.

Source: the items of Earth Search v1 and of the Copernicus Data Space.
"""
POWER_COLLECTIONS = ("sentinel-1-rtc", "sentinel1-rtc-aws")
"""Collections of terrain-corrected gamma nought in linear power.

Source: https://planetarycomputer.microsoft.com/dataset/sentinel-1-rtc;
https://github.com/stactools-packages/sentinel1.
"""
RTC_NODATA = -32768.0
"""Stored value that means no data in Planetary Computer's `sentinel-1-rtc`."""
_UNITS_IN_CATALOGS: dict[str, Unit] = {
    "db": "dB",
    "decibel": "dB",
    "power": "power",
    "linear": "power",
    "linear power": "power",
}
"""Values of STAC's `unit` for backscatter, in lower case."""
_RAW_RADAR = ("safe-manifest", "schema-calibration-", "schema-product-")
"""Beginnings of the keys of assets that go with Sentinel-1 in radar geometry."""
_DISTINCT = (
    "the terrapair:index of bands must be distinct whole numbers from 1, "
    "and a terrapair:key name one band"
)
NodataIn = Literal["any", "all"]
"""Where a no-data value means no data: in any band on its own, or only in all bands."""
SCL_CLEAR_VALUES = (1, 2, 4, 5, 6, 7, 11)
"""Classes of Sentinel-2's scene classification that show the ground.

All classes but no data (0), cloud shadow (3), cloud of medium (8) and of high
probability (9), and thin cirrus (10).

Source: ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document, scene
classification.
"""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """The place of one band's pixels in files, and how to read their unit.

    Attributes:
        path: raster file; `#<member>` names one raster of a file that holds many.
        index: 1-based band index; not used when `key` is set.
        key: the file's own name of the band, for formats whose bands have no order.
        nodata: stored value that means no data, in addition to the one that the file
            declares and to values that no measurement can have.
        nodata_in: whether no-data values count in any band on its own, or only where
            all bands have theirs; None = not declared.
        unit: unit of stored value x scale + offset; "" means that the file holds what
            the sensor's archive holds: dB or digital numbers.
        scale: see `unit`.
        offset: see `unit`.
    """

    path: str
    index: int = 1
    key: str = ""
    nodata: float | None = None
    nodata_in: NodataIn | None = None
    unit: Unit = ""
    scale: float = 1.0
    offset: float = 0.0


def cloud_mask(item: pystac.Item, folder: Location, where: str) -> dict[str, Any]:
    """Return where the scene's cloud mask is, and which of its values mean clear.

    The asset `cloud_mask` goes first. Its value 0 means clear unless
    `terrapair:clear_values` lists other values. Without it, the asset `scl` (the scene
    classification of a Level-2A product) is used, in any spelling of catalogs: SCL,
    SCL_20m, scl-jp2. `terrapair:index` names the band of a file with several.

    Returns:
        The fields `cloud_mask`, `cloud_mask_index` and `clear_values` of a Scene; an
        empty dict when the item has neither asset.

    Raises:
        DataError: the values are not a list of whole numbers, or the file is at an
            unsupported location.
    """
    named = {key: variant_of(key)[0].lower() for key in item.assets}
    name = next((name for name in ("cloud_mask", "scl") if name in named.values()), None)
    if name is None:
        return {}
    asset = min(
        (_Choice.of(key, item.assets[key], folder) for key in named if named[key] == name),
        key=lambda choice: choice.rank,
    ).asset
    default = list(SCL_CLEAR_VALUES) if name == "scl" else [0]
    values = asset.extra_fields.get("terrapair:clear_values", default)
    if (
        not isinstance(values, list)
        or not values
        or not all(type(value) is int for value in values)
    ):
        raise DataError(
            f"{where}: terrapair:clear_values must be a list of whole numbers, got {values!r}",
            "bad_item",
        )
    index = asset.extra_fields.get("terrapair:index", 1)
    if type(index) is not int or index < 1:
        raise DataError(
            f"{where}: terrapair:index of {name} must be a whole number from 1, got {index!r}",
            "bad_item",
        )
    return {
        "cloud_mask": hrefs.resolve(href_of(asset, folder), folder, where),
        "cloud_mask_index": index,
        "clear_values": tuple(values),
    }


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """One of the assets that show the same band.

    Attributes:
        asset: of the item.
        rank: the smallest is used: files on this machine first, then copies of the
            catalog before the agency's own files, then small pixels.
        is_original: whether it is the agency's own JPEG 2000 file.
    """

    asset: pystac.Asset
    rank: tuple[Any, ...]
    is_original: bool

    @classmethod
    def of(cls, key: str, asset: pystac.Asset, folder: Location) -> _Choice:
        _, pixel, is_original = variant_of(key)
        gsd = asset.extra_fields.get("gsd") or pixel
        size = gsd if isinstance(gsd, int | float) else 0
        is_far = not hrefs.is_local(href_of(asset, folder))
        return cls(asset=asset, rank=(is_far, is_original, size, key), is_original=is_original)


def href_of(asset: pystac.Asset, folder: Location) -> str:
    """Return the href of an asset, or its `file:local_path` if it is downloaded there.

    Source: https://github.com/stac-extensions/file.
    """
    path = asset.extra_fields.get("file:local_path")
    if hrefs.is_local(asset.href) or not isinstance(path, str) or not isinstance(folder, Path):
        return asset.href
    return path if (folder / path).exists() else asset.href


def band_sources(
    item: pystac.Item, sensor: Sensor, folder: Location, where: str
) -> dict[str, BandSource]:
    """Return where each band of the scene is stored, by band name.

    The bands are listed in order in the asset `data` (`bands` or `eo:bands`), or each
    band has an asset of its own. Names are understood in all usual spellings: B4, B04,
    red, vv. A band may declare its place in the file by `terrapair:index` (1-based) or
    by `terrapair:key` (the file's own name of the band). This is needed when the file
    holds other bands between them. TFRecord exports have no order, so there the band's
    name is the key by default.

    If several assets show one band, the first of these is used: a file on this machine,
    the catalog's copy before the agency's own JPEG 2000 file, the smallest pixels.

    Raises:
        DataError: no known band, an unknown order, two bands at one place, a field with
            a wrong value, or Sentinel-1 in radar geometry.
    """
    if sensor == "s1":
        _check_geocoded(item, where)
    assumed = _assumed_fields(item, sensor)
    if "data" not in item.assets:
        chosen = _band_assets(item, sensor, folder, where)
        return {
            name: _band_source(
                sensor,
                {**assumed, **choice.asset.extra_fields, **_own_entry(choice.asset), "name": key},
                hrefs.resolve(href_of(choice.asset, folder), folder, where),
                where,
                1,
            )
            for name, (key, choice) in chosen.items()
        }
    asset = item.assets["data"]
    listed = _entries(asset)
    if listed is None:
        raise DataError(
            f"{where}: asset 'data' must list its bands as objects, "
            f"got {asset.extra_fields.get('bands') or asset.extra_fields.get('eo:bands')!r}",
            "unknown_band_order",
        )
    names = [_band_in(sensor, entry) for entry in listed]
    if not any("name" in entry or _common_name(entry) for entry in listed):
        raise DataError(
            f"{where}: asset 'data' does not name its bands in order", "unknown_band_order"
        )
    known = [name for name in names if name is not None]
    if not known or len(set(known)) != len(known):
        raise DataError(
            f"{where}: asset 'data' names bands {[entry.get('name') for entry in listed]}; "
            "known and distinct ones are needed",
            "unknown_band_order",
        )
    path = hrefs.resolve(href_of(asset, folder), folder, where)
    sources = {
        name: _band_source(
            sensor, {**assumed, **asset.extra_fields, **entry}, path, where, position
        )
        for position, (name, entry) in enumerate(zip(names, listed, strict=True), start=1)
        if name is not None
    }
    places = [source.key or source.index for source in sources.values()]
    if len(set(places)) != len(places):
        raise DataError(f"{where}: {_DISTINCT}, got {places}", "unknown_band_order")
    return sources


def shows_originals(item: pystac.Item, sensor: Sensor, folder: Location, where: str) -> bool:
    """Return whether the bands are the agency's own files, not the catalog's copies.

    What the catalog did to its copies, such as removing the offset, does not hold for
    them.

    Raises:
        DataError: some bands are originals and some are copies.
    """
    if "data" in item.assets:
        return False
    kinds = {choice.is_original for _, choice in _band_assets(item, sensor, folder, where).values()}
    if len(kinds) > 1:
        raise DataError(
            f"{where}: some bands are the agency's JPEG 2000 files and some the catalog's "
            "copies, from which the offset of 1000 was removed: download all bands of one kind",
            "bad_item",
        )
    return True in kinds


def _check_geocoded(item: pystac.Item, where: str) -> None:
    """Refuse Sentinel-1 GRD or SLC as the agency publishes it.

    Its pixels are uncalibrated and lie in radar geometry, whatever `proj:code` says.

    Source: the items of `sentinel-1-grd` in Earth Search and Planetary Computer.
    """
    is_raw = any(key.startswith(_RAW_RADAR) for key in item.assets)
    has_unit = any("terrapair:unit" in asset.extra_fields for asset in item.assets.values())
    if is_raw and not has_unit:
        kind = item.properties.get("sar:product_type") or item.properties.get("product:type")
        raise DataError(
            f"{where}: is Sentinel-1 {kind or 'GRD'} in radar geometry, neither calibrated nor "
            "geocoded: use sentinel-1-rtc or COPERNICUS/S1_GRD of Earth Engine, or geocode it "
            "and declare terrapair:unit",
            "not_geocoded",
        )


def _assumed_fields(item: pystac.Item, sensor: Sensor) -> dict[str, Any]:
    """Return the fields of bands that a known collection leaves out of its items."""
    if sensor == "s1" and item.collection_id in POWER_COLLECTIONS:
        return {"unit": "power", "nodata": RTC_NODATA}
    return {}


def _band_assets(
    item: pystac.Item, sensor: Sensor, folder: Location, where: str
) -> dict[str, tuple[str, _Choice]]:
    """Return the asset of each band with its key, by band.

    Raises:
        DataError: the item has none.
    """
    found: dict[str, tuple[str, _Choice]] = {}
    for key, asset in item.assets.items():
        entry = _own_entry(asset)
        name = band_of(sensor, key, variant_of(key)[0], entry.get("name"), _common_name(entry))
        if name is None or {"visual", "overview", "thumbnail"} & set(asset.roles or ()):
            continue
        choice = _Choice.of(key, asset, folder)
        if name not in found or choice.rank < found[name][1].rank:
            found[name] = key, choice
    if not found:
        raise DataError(
            f"{where}: has neither an asset 'data' nor one per band of {sensor}; "
            f"its assets are {', '.join(item.assets) or 'none'}",
            "missing_bands",
        )
    order = list(BANDS[sensor])
    return dict(sorted(found.items(), key=lambda entry: order.index(entry[0])))


def _entries(asset: pystac.Asset) -> list[dict[str, Any]] | None:
    """Return what an asset says of each of its bands; None if it lists no objects.

    `bands` of STAC 1.1 is one list. In STAC 1.0, `eo:bands` has the names and
    `raster:bands` the numbers, in the same order.
    """
    fields = asset.extra_fields
    lists = [fields.get("raster:bands") or [], fields.get("bands") or fields.get("eo:bands") or []]
    if not all(
        isinstance(one, list) and all(isinstance(band, Mapping) for band in one) for one in lists
    ):
        return None
    numbers, names = lists
    merged: list[dict[str, Any]] = [{} for _ in range(max(len(numbers), len(names)))]
    for entry, band in zip(merged, numbers, strict=False):
        entry.update(_numbers_of(band))
    for entry, band in zip(merged, names, strict=False):
        entry.update(band)
    return merged


def _numbers_of(band: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry of `raster:bands` with the names of its fields in STAC 1.1."""
    renamed = {"scale": "raster:scale", "offset": "raster:offset", "nodata": "raster:nodata"}
    found = {new: band[old] for old, new in renamed.items() if band.get(old) is not None}
    return found | ({"unit": band["unit"]} if band.get("unit") else {})


def _own_entry(asset: pystac.Asset) -> dict[str, Any]:
    """Return what an asset of one band says of it."""
    entries = _entries(asset)
    return entries[0] if entries is not None and len(entries) == 1 else {}


def _common_name(entry: Mapping[str, Any]) -> object:
    return entry.get("eo:common_name") or entry.get("common_name")


def _band_in(sensor: Sensor, entry: Mapping[str, Any]) -> str | None:
    return band_of(sensor, entry.get("name"), _common_name(entry))


def _band_source(
    sensor: Sensor, fields: Mapping[str, Any], path: str, where: str, position: int
) -> BandSource:
    """Return where one band is stored, from the fields of its entry or asset.

    `nodata` is the field of STAC's common metadata, and `raster:nodata` stands for that
    of `raster:bands`. A catalog's nodata is always used, with one exception: 0 of
    Sentinel-2 digital numbers is what the archive itself means by it.
    `terrapair:nodata_in` says whether nodata counts in `any` band on its own, or only
    where `all` bands have theirs.
    """
    nodata_in = fields.get("terrapair:nodata_in")
    if nodata_in not in (None, "any", "all"):
        raise DataError(
            f"{where}: terrapair:nodata_in must be any or all, got {nodata_in!r}", "bad_item"
        )
    index = fields.get("terrapair:index", position)
    if type(index) is not int or index < 1:
        raise DataError(f"{where}: {_DISTINCT}, got {index!r}", "unknown_band_order")
    if "raster:nodata" in fields:
        is_archives_own = sensor == "s2" and not fields["raster:nodata"]
        if not is_archives_own or "terrapair:unit" in fields:
            fields = {**fields, "nodata": fields["raster:nodata"]}
    nodata = fields.get("nodata")
    units = _units(sensor, fields, where)
    try:
        return BandSource(
            path=path,
            index=index,
            key=str(
                fields.get(
                    "terrapair:key",
                    fields.get("name", "") if path.endswith(MIXER_SUFFIX) else "",
                )
            ),
            nodata=None if nodata is None else float(nodata),
            nodata_in=nodata_in,
            **units,
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: nodata of a band must be a number, got {nodata!r}", "bad_item"
        ) from error


def _units(sensor: Sensor, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the declared unit of a band, with its scale and offset.

    Scale and offset are those of STAC's raster extension. They are trusted beside a
    unit: `terrapair:unit`, or for backscatter STAC's own `unit` (dB, linear).

    Without a unit they are not applied. For Sentinel-2, catalogs declare the scale of
    the archive, and the 2022 offset even when the pixels do not carry it; any other
    scale or offset is refused, because the pixels are then not those of the archive.
    For backscatter, any scale or offset without a unit is refused.

    With the unit, a sensor's usual fill values may be measurements, so the item must
    declare `nodata`.
    """
    unit = fields.get("terrapair:unit")
    if unit is None and sensor == "s1":
        unit = _UNITS_IN_CATALOGS.get(str(fields.get("unit")).lower())
    numbers = {
        name: fields.get(f"raster:{name}", default)
        for name, default in (("scale", 1.0), ("offset", 0.0))
    }
    for name, value in numbers.items():
        if (
            type(value) not in (int, float)
            or not math.isfinite(value)
            or (name == "scale" and not value)
        ):
            raise DataError(
                f"{where}: raster:{name} of a band must be a number, scale not 0, got {value!r}",
                "bad_item",
            )
    if unit is None:
        _check_archives_own(sensor, numbers, where)
        return {}
    if unit not in UNITS[sensor]:
        raise DataError(
            f"{where}: terrapair:unit of {sensor} must be {' or '.join(UNITS[sensor])}, "
            f"got {unit!r}",
            "bad_item",
        )
    if "terrapair:unit" in fields and "nodata" not in fields:
        raise DataError(
            f"{where}: a band with terrapair:unit needs nodata: the stored value, "
            "or null when all are measurements, got none",
            "bad_item",
        )
    if unit == "dB" and numbers == {"scale": 1.0, "offset": 0.0} and "terrapair:unit" not in fields:
        # That is what the archive holds: its fill values are no measurements.
        return {}
    return {"unit": unit, **numbers}


def _check_archives_own(sensor: Sensor, numbers: Mapping[str, float], where: str) -> None:
    """Refuse a scale or an offset that the sensor's archive does not have."""
    scale, offset = numbers["scale"], numbers["offset"]
    is_scale = scale == 1.0 or (
        sensor == "s2" and math.isclose(scale, S2_REFLECTANCE_PER_DN, rel_tol=1e-6)
    )
    is_offset = offset == 0.0 or (
        sensor == "s2" and any(math.isclose(offset, known) for known in ARCHIVE_OFFSETS)
    )
    if not is_scale or not is_offset:
        raise DataError(
            f"{where}: raster:scale {scale:g} and raster:offset {offset:g} without a unit are "
            f"not those of the archive: declare terrapair:unit "
            f"({' or '.join(UNITS[sensor])}) and nodata",
            "bad_item",
        )


def check_one_unit(bands: Mapping[str, BandSource], dn_offset: int | None, where: str) -> None:
    """Check that all bands have one unit, and no offset beside a unit.

    Raises:
        DataError: with the units or the offset that were found.
    """
    units = sorted({source.unit for source in bands.values()})
    if len(units) > 1:
        raise DataError(
            f"{where}: all bands must have one terrapair:unit, or none of them, got {units}",
            "bad_item",
        )
    if units[0] and dn_offset:
        raise DataError(
            f"{where}: terrapair:dn_offset must be absent beside terrapair:unit, got {dn_offset}",
            "bad_item",
        )
