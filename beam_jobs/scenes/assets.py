"""Assets: where a scene's bands, label and cloud mask are stored, and in which units.

Input: a STAC item. Output: BandSources, a LabelSource and the path of the cloud mask.
The files themselves are not opened here.
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
"""Units that a band of each sensor may declare. "power" is linear backscatter."""
NAMED_BANDS_SUFFIX = "mixer.json"
"""End of the names of Earth Engine's TFRecord exports, whose bands have no order."""
_DISTINCT = (
    "the terrapair:index of bands must be distinct whole numbers from 1, "
    "and a terrapair:key name one band"
)
LabelKind = Literal["hand", "weak"]
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
    """Where the pixels of one band are stored, and how to read their unit.

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


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Where a scene's label raster is, and what its values mean.

    Attributes:
        path: of the raster file.
        schema: name of its label schema.
        nodata: value that means no label, in addition to 255.
        kind: "hand" for labels drawn by people; "weak" for labels made by a rule or
            another model, which are never used to measure a model.
    """

    path: str
    schema: str
    nodata: int | None
    kind: LabelKind = "hand"


def cloud_mask(item: pystac.Item, folder: Location, where: str) -> dict[str, Any]:
    """Return where the scene's cloud mask is, and which of its values mean clear.

    The asset `cloud_mask` goes first. Its value 0 means clear unless
    `terrapair:clear_values` lists other values. Without it, the asset `scl` (the scene
    classification of a Level-2A product) is used.

    Returns:
        The fields `cloud_mask` and `clear_values` of a Scene; an empty dict when the
        item has neither asset.

    Raises:
        DataError: the values are not a list of whole numbers, or the file is at an
            unsupported location.
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
    """Return where each band of the scene is stored, by band name.

    The bands are listed in order in the asset `data`, or each band has an asset of its
    own. A band may declare its place in the file by `terrapair:index` (1-based) or by
    `terrapair:key` (the file's own name of the band). This is needed when the file
    holds other bands between them. TFRecord exports have no order, so there the band's
    name is the key by default.

    Raises:
        DataError: no known band, an unknown order, two bands at one place, or a field
            with a wrong value.
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
    """Return where one band is stored, from the fields of its entry or asset.

    `nodata` is the field of STAC's common metadata. `terrapair:nodata_in` says whether
    it counts in `any` band on its own, or only where `all` bands have theirs.
    """
    nodata_in = fields.get("terrapair:nodata_in")
    if nodata_in not in (None, "any", "all"):
        raise DataError(
            f"{where}: terrapair:nodata_in must be any or all, got {nodata_in!r}", "bad_item"
        )
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
            nodata_in=nodata_in,
            **units,
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: nodata of a band must be a number, got {nodata!r}", "bad_item"
        ) from error


def _units(sensor: Sensor, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the declared unit of a band, with its scale and offset.

    Scale and offset are those of STAC's raster extension. Without `terrapair:unit` they
    are ignored: catalogs of Sentinel-2 declare the 2022 offset there even when the
    pixels do not carry it. With the unit, a sensor's usual fill values may be
    measurements, so the item must declare `nodata`.
    """
    unit = fields.get("terrapair:unit")
    if unit is None:
        return {}
    if unit not in UNITS[sensor]:
        raise DataError(
            f"{where}: terrapair:unit of {sensor} must be {' or '.join(UNITS[sensor])}, "
            f"got {unit!r}",
            "bad_item",
        )
    if "nodata" not in fields:
        raise DataError(
            f"{where}: a band with terrapair:unit needs nodata: the stored value, "
            "or null when all are measurements, got none",
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


def label_source(item: pystac.Item, folder: Location, where: str) -> LabelSource | None:
    """Return the label raster of the asset `label`, or None when the item has none.

    Raises:
        DataError: the asset names no schema, an unknown kind, or an unsupported
            location.
    """
    if "label" not in item.assets:
        return None
    asset = item.assets["label"]
    schema = asset.extra_fields.get("terrapair:label_schema")
    if not schema:
        raise DataError(f"{where}: asset 'label' lacks terrapair:label_schema", "bad_item")
    kind = asset.extra_fields.get("terrapair:label_kind", "hand")
    # A typing error must not turn a weak label into one that models are measured on.
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
    """Return the path or URI of an asset; relative ones start at the catalog folder."""
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
