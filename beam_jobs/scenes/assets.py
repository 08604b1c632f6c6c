"""Assets: where a scene's bands, label and cloud mask are, and what is in them, as its STAC item's assets say.

Input: a STAC item. Output: BandSources, LabelSource, and the cloud mask's path. Called
by `scenes.py`; `readers.py` opens them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pystac

from beam_jobs.contracts.bands import BANDS, Sensor
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import SCHEMES
from beam_jobs.errors import DataError

Unit = Literal["", "dB", "power", "reflectance"]
UNITS: dict[Sensor, tuple[Unit, ...]] = {"s1": ("dB", "power"), "s2": ("reflectance",)}
"""What the bands of a sensor can be declared to hold; power is linear backscatter."""
NAMED_BANDS_SUFFIX = "mixer.json"
"""End of the files whose bands have names but no order: Earth Engine's TFRecord exports."""
_DISTINCT = "the terrapair:index of bands must be distinct whole numbers from 1, and a terrapair:key name one band"
LabelKind = Literal["hand", "weak"]
SCL_CLEAR_VALUES = (1, 2, 4, 5, 6, 7, 11)
"""Classes of Sentinel-2's scene classification that show the ground: all but no data (0), cloud shadow (3), cloud of medium
and of high probability (8, 9) and thin cirrus (10).

Source: ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document, scene
classification.
"""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """Where a band's pixels are.

    Attributes:
        path: raster file, with `#<member>` where it holds many (`beam_jobs/rasters`).
        index: 1-based band index, where `key` is empty.
        key: the file's own name of the band: of formats whose bands have no order.
        nodata: stored value that means no data, besides what the file declares and what
            no measurement can be.
        unit: what stored value x scale + offset is; "" = stored as the sensor's
            archives do, in dB or digital numbers.
        scale: see `unit`.
        offset: see `unit`.
    """

    path: str
    index: int = 1
    key: str = ""
    nodata: float | None = None
    unit: Unit = ""
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A label raster.

    Attributes:
        path: of the file.
        schema: name of its label schema.
        nodata: value that means no label (besides 255).
        kind: "hand", or "weak": made by a rule or another model, so that nothing may be
            measured on it.
    """

    path: str
    schema: str
    nodata: int | None
    kind: LabelKind = "hand"


def cloud_mask(item: pystac.Item, folder: Location, where: str) -> dict[str, Any]:
    """Where the scene's cloud mask is and which values of it mean clear.

    Asset `cloud_mask` is a mask of its own, by default with 0 as clear;
    `terrapair:clear_values` lists the values where it holds classes. Asset `scl` is the
    scene classification of a Level-2A product, used where the other lacks.

    Returns:
        `cloud_mask` and `clear_values` of a Scene; nothing when the item has neither
        asset.

    Raises:
        DataError: the values are no list of whole numbers, or the file cannot be
            reached.
    """
    name = next((name for name in ("cloud_mask", "scl") if name in item.assets), None)
    if name is None:
        return {}
    default = list(SCL_CLEAR_VALUES) if name == "scl" else [0]
    values = item.assets[name].extra_fields.get("terrapair:clear_values", default)
    if (
        not isinstance(values, list)
        or not values
        or not all(type(value) is int for value in values)
    ):
        raise DataError(
            f"{where}: terrapair:clear_values must be a list of whole numbers, got {values!r}",
            "bad_item",
        )
    return {
        "cloud_mask": _resolve(item.assets[name].href, folder, where),
        "clear_values": tuple(values),
    }


def band_sources(
    item: pystac.Item, sensor: Sensor, folder: Location, where: str
) -> dict[str, BandSource]:
    """Bands of the `data` asset in the order it names them, or one asset per band.

    A band may say where it is, as it must in a file that holds other bands between
    them: by `terrapair:index` (1-based), or by `terrapair:key`, the file's own name for
    it. TFRecords know names only, so there the band's name is the key.

    Raises:
        DataError: no known band, bands in no order or at one place, or fields that say
            nothing.
    """
    if "data" not in item.assets:
        sources = {
            name: _band_source(
                sensor,
                {"name": name, **asset.extra_fields},
                _resolve(asset.href, folder, where),
                where,
                1,
            )
            for name, asset in item.assets.items()
            if name in BANDS[sensor]
        }
        if not sources:
            raise DataError(
                f"{where}: has neither an asset 'data' nor one per band of {sensor}",
                "missing_bands",
            )
        return sources
    asset = item.assets["data"]
    listed = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    if not isinstance(listed, list) or not all(isinstance(band, Mapping) for band in listed):
        raise DataError(
            f"{where}: asset 'data' must list its bands as objects, got {listed!r}",
            "unknown_band_order",
        )
    names = [str(band.get("name")) for band in listed]
    if not names:
        raise DataError(
            f"{where}: asset 'data' does not name its bands in order", "unknown_band_order"
        )
    unknown = [name for name in names if name not in BANDS[sensor]]
    if unknown or len(set(names)) != len(names):
        raise DataError(
            f"{where}: asset 'data' names bands {names}; known and distinct ones are needed",
            "unknown_band_order",
        )
    path = _resolve(asset.href, folder, where)
    sources = {
        name: _band_source(sensor, {**asset.extra_fields, **band}, path, where, position)
        for position, (name, band) in enumerate(zip(names, listed, strict=True), start=1)
    }
    places = [source.key or source.index for source in sources.values()]
    if len(set(places)) != len(places):
        raise DataError(f"{where}: {_DISTINCT}, got {places}", "unknown_band_order")
    return sources


def _band_source(
    sensor: Sensor, fields: Mapping[str, Any], path: str, where: str, position: int
) -> BandSource:
    """Where a band is, by the fields of its entry or asset; `nodata` is that of STAC's common metadata."""
    index, nodata = fields.get("terrapair:index", position), fields.get("nodata")
    if type(index) is not int or index < 1:
        raise DataError(f"{where}: {_DISTINCT}, got {index!r}", "unknown_band_order")
    units = _units(sensor, fields, where)
    try:
        return BandSource(
            path=path,
            index=index,
            key=str(
                fields.get(
                    "terrapair:key",
                    fields.get("name", "") if path.endswith(NAMED_BANDS_SUFFIX) else "",
                )
            ),
            nodata=None if nodata is None else float(nodata),
            **units,
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: nodata of a band must be a number, got {nodata!r}", "bad_item"
        ) from error


def _units(sensor: Sensor, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a band holds where the item says it: `terrapair:unit`, with scale and offset of STAC's raster extension.

    Without the unit, scale and offset are not looked at: catalogs of Sentinel-2 carry
    the 2022 offset there, also where the pixels do not. With it the sensors' own fill
    values no longer tell no data, so the item must.
    """
    unit = fields.get("terrapair:unit")
    if unit is None:
        return {}
    if unit not in UNITS[sensor]:
        raise DataError(
            f"{where}: terrapair:unit of {sensor} must be {' or '.join(UNITS[sensor])}, got {unit!r}",
            "bad_item",
        )
    if "nodata" not in fields:
        raise DataError(
            f"{where}: a band with terrapair:unit needs nodata: the stored value, or null when all are measurements, got none",
            "bad_item",
        )
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
    return {"unit": unit, **numbers}


def check_one_unit(bands: Mapping[str, BandSource], dn_offset: int | None, where: str) -> None:
    """Refuses bands of several units, and an offset of digital numbers beside a unit.

    Raises:
        DataError: with what was found.
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


def label_source(item: pystac.Item, folder: Location, where: str) -> LabelSource | None:
    """The label raster of asset `label`; None when the item has none.

    Raises:
        DataError: it names no schema, an unknown kind, or a file that cannot be
            reached.
    """
    if "label" not in item.assets:
        return None
    asset = item.assets["label"]
    schema = asset.extra_fields.get("terrapair:label_schema")
    if not schema:
        raise DataError(f"{where}: asset 'label' lacks terrapair:label_schema", "bad_item")
    kind = asset.extra_fields.get("terrapair:label_kind", "hand")
    # A slip of the pen must not make a weak label one to measure on.
    if kind not in ("hand", "weak"):
        raise DataError(
            f"{where}: terrapair:label_kind must be hand or weak, got {kind!r}", "bad_item"
        )
    return LabelSource(
        path=_resolve(asset.href, folder, where),
        schema=str(schema),
        nodata=asset.extra_fields.get("terrapair:label_nodata"),
        kind="weak" if kind == "weak" else "hand",
    )


def _resolve(href: str, folder: Location, where: str) -> str:
    """Path or URI of an asset; relative ones are relative to the catalog."""
    scheme, separator, rest = href.partition("://")
    if not separator:
        return str(folder / href)
    if scheme in SCHEMES:
        return href
    if scheme != "file":
        raise DataError(
            f"{where}: assets must be local files or lie on {', '.join(SCHEMES)}, got {href}",
            "bad_item",
        )
    return rest
