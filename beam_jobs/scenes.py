"""Scene: one acquisition of one sensor, as a STAC item describes it; the element of the first half of every build.

Input: STAC item dicts of a catalog. Output: Scene, still unchecked against its rasters (`readers.inspect` does that).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pystac
import shapely
from shapely.geometry import shape

from beam_jobs.contracts.bands import BANDS, S2_BASELINE_0400_DN_OFFSET, Sensor
from beam_jobs.contracts.layout import SPLITS
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.object_store import SCHEMES
from beam_jobs.contracts.records import OrbitState
from beam_jobs.errors import DataError
from beam_jobs.grids import Grid

Unit = Literal["", "dB", "power", "reflectance"]
UNITS: dict[Sensor, tuple[Unit, ...]] = {"s1": ("dB", "power"), "s2": ("reflectance",)}
"""What the bands of a sensor can be declared to hold; power is linear backscatter."""
NAMED_BANDS_SUFFIX = "mixer.json"
"""End of the files whose bands have names but no order: Earth Engine's TFRecord exports."""
_DISTINCT = "the terrapair:index of bands must be distinct whole numbers from 1, and a terrapair:key name one band"
LabelKind = Literal["hand", "weak"]
SENSOR_OF_CONSTELLATION: dict[str, Sensor] = {"sentinel-1": "s1", "sentinel-2": "s2"}


SCL_CLEAR_VALUES = (1, 2, 4, 5, 6, 7, 11)
"""Classes of Sentinel-2's scene classification that show the ground: all but no data (0), cloud shadow (3), cloud of medium
and of high probability (8, 9) and thin cirrus (10).

Source: ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document, scene classification.
"""
REFUSED = "terrapair:refused"
"""Property of an item whose files could not be read when its catalog was written: {"reason": ..., "detail": ...}."""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """Where a band's pixels are.

    Attributes:
        path: raster file, with `#<member>` where it holds many (`beam_jobs/rasters`).
        index: 1-based band index, where `key` is empty.
        key: the file's own name of the band: of formats whose bands have no order.
        nodata: stored value that means no data, besides what the file declares and what no measurement can be.
        unit: what stored value x scale + offset is; "" = stored as the sensor's archives do, in dB or digital numbers.
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
        kind: "hand", or "weak": made by a rule or another model, so that nothing may be measured on it.
    """

    path: str
    schema: str
    nodata: int | None
    kind: LabelKind = "hand"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One acquisition.

    Attributes:
        scene_id: id of the STAC item.
        sensor: "s1" or "s2".
        acquired_at: seconds since 1970, UTC.
        orbit_state: of the pass, "unknown" when the item does not tell.
        relative_orbit: number of the track, which repeats; None = not declared.
        processing_level: "L1C" or "L2A" for Sentinel-2, "" for Sentinel-1.
        footprint: GeoJSON polygon, lon/lat.
        declared_crs: `proj:code` of the item, if any.
        dn_offset: what Sentinel-2 digital numbers carry; None = not declared, the pixels must tell.
        cloud_fraction: of the whole scene, 0-1, NaN = not declared.
        split: the data set's own split of the scene, which goes before that of its blocks; None = not declared.
        event: name of the event it was chosen for (`terrapair:event`), "" when the item does not tell.
        holdouts: names of the hold-outs that the scene falls under by a property.
        source: where it comes from (`terrapair:source`, or the item's collection), "unknown" when the item does not tell.
        license: likewise (STAC's `license`).
        bands: band name -> where it is.
        label: label raster, if any.
        cloud_mask: path of a uint8 raster, if any.
        clear_values: values of the cloud mask that mean clear; any other is cloud, shadow or unknown.
        grid: grid of the band with the finest pixels; None until inspected.
    """

    scene_id: str
    sensor: Sensor
    acquired_at: int
    orbit_state: OrbitState = "unknown"
    relative_orbit: int | None = None
    processing_level: Literal["", "L1C", "L2A"] = ""
    footprint: Mapping[str, Any] = field(repr=False)
    declared_crs: str | None = None
    dn_offset: int | None = None
    cloud_fraction: float = float("nan")
    split: str | None = None
    event: str = ""
    holdouts: frozenset[str] = frozenset()
    source: str = "unknown"
    license: str = "unknown"
    bands: Mapping[str, BandSource] = field(repr=False)
    label: LabelSource | None = None
    cloud_mask: str | None = None
    clear_values: tuple[int, ...] = (0,)
    grid: Grid | None = None

    @property
    def is_absent(self) -> bool:
        """Whether there is no such scene; see `absent_partner`."""
        return not self.scene_id

    @property
    def declares_units(self) -> bool:
        """Whether the item says what its pixels are, so that nothing is told from their values."""
        return any(source.unit for source in self.bands.values())

    @property
    def paths(self) -> set[str]:
        """All rasters of the scene."""
        side = [self.label.path if self.label else None, self.cloud_mask]
        return {source.path for source in self.bands.values()} | {path for path in side if path}


def absent_partner(scene: Scene) -> Scene:
    """Stands in for the partner that an inspected `scene` does not have: of the other sensor, same time and grid, no band."""
    return Scene(
        scene_id="",
        sensor="s2" if scene.sensor == "s1" else "s1",
        acquired_at=scene.acquired_at,
        footprint=scene.footprint,
        bands={},
        grid=scene.grid,
    )


def from_item(values: Mapping[str, Any], catalog: Location) -> Scene:
    """The scene of a STAC item.

    Args:
        values: the item as JSON.
        catalog: its file; relative hrefs are resolved against the folder.

    Raises:
        DataError: not a STAC item, no time, no footprint, an unknown constellation, or assets without known bands.
    """
    try:
        item = pystac.Item.from_dict(dict(values), migrate=False, preserve_dict=False)
    except (pystac.STACError, pystac.STACTypeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{catalog}: not a STAC item: {error}", "bad_item") from error
    if not item.id:
        raise DataError(f"{catalog}: an item needs an id, got {item.id!r}", "bad_item")
    where = f"{catalog}: item {item.id}"
    refused = item.properties.get(REFUSED)
    if isinstance(refused, Mapping):
        raise DataError(str(refused.get("detail", where)), str(refused.get("reason", "bad_item")))
    constellation = constellation_of(item.properties)
    if constellation not in SENSOR_OF_CONSTELLATION:
        raise DataError(f"{where}: constellation must be sentinel-1 or sentinel-2, got {constellation!r}", "bad_item")
    if item.datetime is None or item.datetime.tzinfo is None or item.geometry is None:
        raise DataError(f"{where}: needs a datetime with a time zone and a geometry", "bad_item")
    sensor = SENSOR_OF_CONSTELLATION[constellation]
    properties = item.properties
    orbit_state = str(properties.get("sat:orbit_state", "unknown")).lower()
    dn_offset = _dn_offset(properties, where)
    bands = _band_sources(item, sensor, catalog.parent, where)
    _check_one_unit(bands, dn_offset, where)
    return Scene(
        scene_id=item.id,
        sensor=sensor,
        acquired_at=int(item.datetime.timestamp()),
        orbit_state=orbit_state if orbit_state in ("ascending", "descending") else "unknown",  # type: ignore[arg-type]
        relative_orbit=_relative_orbit(properties, where),
        processing_level=_processing_level(properties, where) if sensor == "s2" else "",
        footprint=_footprint(item.geometry, where),
        declared_crs=_declared_crs(properties),
        dn_offset=dn_offset,
        cloud_fraction=_cloud_fraction(properties, where),
        split=_split(properties, where),
        event=str(properties.get("terrapair:event") or ""),
        source=str(properties.get("terrapair:source") or item.collection_id or "unknown"),
        license=str(properties.get("license") or "unknown"),
        bands=bands,
        label=_label_source(item, catalog.parent, where),
        **_cloud_mask(item, catalog.parent, where),
    )


def _cloud_mask(item: pystac.Item, folder: Location, where: str) -> dict[str, Any]:
    """Where the scene's cloud mask is and which values of it mean clear.

    Asset `cloud_mask` is a mask of its own, by default with 0 as clear; `terrapair:clear_values` lists the values where it
    holds classes. Asset `scl` is the scene classification of a Level-2A product, used where the other lacks.
    """
    name = next((name for name in ("cloud_mask", "scl") if name in item.assets), None)
    if name is None:
        return {}
    default = list(SCL_CLEAR_VALUES) if name == "scl" else [0]
    values = item.assets[name].extra_fields.get("terrapair:clear_values", default)
    if not isinstance(values, list) or not values or not all(type(value) is int for value in values):
        raise DataError(f"{where}: terrapair:clear_values must be a list of whole numbers, got {values!r}", "bad_item")
    return {"cloud_mask": _resolve(item.assets[name].href, folder, where), "clear_values": tuple(values)}


def _footprint(geometry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The geometry, once it has an extent: pairing asks every scene for it."""
    try:
        empty = shape(geometry).is_empty
    except (shapely.errors.ShapelyError, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{where}: its geometry is not GeoJSON: {error}", "bad_item") from error
    if empty:
        raise DataError(f"{where}: its geometry is empty", "bad_item")
    return geometry


def _dn_offset(properties: Mapping[str, Any], where: str) -> int | None:
    offset = properties.get("terrapair:dn_offset")
    # Products write it as -1000 (BOA_ADD_OFFSET); taken as that, it would be added instead of removed.
    if offset not in (None, 0, S2_BASELINE_0400_DN_OFFSET):
        raise DataError(f"{where}: terrapair:dn_offset must be 0 or 1000, got {offset!r}", "bad_item")
    return None if offset is None else int(offset)


def _cloud_fraction(properties: Mapping[str, Any], where: str) -> float:
    cover = properties.get("eo:cloud_cover")
    if cover is None:
        return float("nan")
    if not isinstance(cover, (int, float)) or not 0 <= cover <= 100:
        raise DataError(f"{where}: eo:cloud_cover must be 0-100, got {cover!r}", "bad_item")
    return cover / 100.0


def constellation_of(properties: Mapping[str, Any]) -> str:
    """`constellation` of an item's properties, or what its `platform` belongs to: sentinel-1a -> sentinel-1."""
    named = properties.get("constellation") or str(properties.get("platform", ""))[: len("sentinel-1")]
    return str(named).lower()


def _relative_orbit(properties: Mapping[str, Any], where: str) -> int | None:
    number = properties.get("sat:relative_orbit")
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
        raise DataError(f"{where}: sat:relative_orbit must be a whole number from 1, got {number!r}", "bad_item")
    return number


def _split(properties: Mapping[str, Any], where: str) -> str | None:
    split = properties.get("terrapair:split")
    if split not in (None, *SPLITS):
        raise DataError(f"{where}: terrapair:split must be one of {', '.join(SPLITS)}, got {split!r}", "bad_item")
    return split


def _declared_crs(properties: Mapping[str, Any]) -> str | None:
    """`proj:code` of STAC projection 2.0, or its forerunner `proj:epsg`."""
    if properties.get("proj:code"):
        return str(properties["proj:code"])
    return f"EPSG:{properties['proj:epsg']}" if properties.get("proj:epsg") else None


def _processing_level(properties: Mapping[str, Any], where: str) -> Literal["L1C", "L2A"]:
    level = str(properties.get("processing:level", "")).upper()
    if level not in ("L1C", "L2A"):
        raise DataError(f"{where}: processing:level must be L1C or L2A, got {level!r}", "bad_item")
    return "L1C" if level == "L1C" else "L2A"


def _band_sources(item: pystac.Item, sensor: Sensor, folder: Location, where: str) -> dict[str, BandSource]:
    """Bands of the `data` asset in the order it names them, or one asset per band.

    A band may say where it is, as it must in a file that holds other bands between them: by `terrapair:index` (1-based), or by
    `terrapair:key`, the file's own name for it. TFRecords know names only, so there the band's name is the key.
    """
    if "data" not in item.assets:
        sources = {
            name: _band_source(
                sensor, {"name": name, **asset.extra_fields}, _resolve(asset.href, folder, where), where, 1
            )
            for name, asset in item.assets.items()
            if name in BANDS[sensor]
        }
        if not sources:
            raise DataError(f"{where}: has neither an asset 'data' nor one per band of {sensor}", "missing_bands")
        return sources
    asset = item.assets["data"]
    listed = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands") or []
    if not isinstance(listed, list) or not all(isinstance(band, Mapping) for band in listed):
        raise DataError(f"{where}: asset 'data' must list its bands as objects, got {listed!r}", "unknown_band_order")
    names = [str(band.get("name")) for band in listed]
    if not names:
        raise DataError(f"{where}: asset 'data' does not name its bands in order", "unknown_band_order")
    unknown = [name for name in names if name not in BANDS[sensor]]
    if unknown or len(set(names)) != len(names):
        raise DataError(
            f"{where}: asset 'data' names bands {names}; known and distinct ones are needed", "unknown_band_order"
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


def _band_source(sensor: Sensor, fields: Mapping[str, Any], path: str, where: str, position: int) -> BandSource:
    """Where a band is, by the fields of its entry or asset; `nodata` is that of STAC's common metadata."""
    index, nodata = fields.get("terrapair:index", position), fields.get("nodata")
    if type(index) is not int or index < 1:
        raise DataError(f"{where}: {_DISTINCT}, got {index!r}", "unknown_band_order")
    units = _units(sensor, fields, where)
    try:
        return BandSource(
            path=path,
            index=index,
            key=str(fields.get("terrapair:key", fields.get("name", "") if path.endswith(NAMED_BANDS_SUFFIX) else "")),
            nodata=None if nodata is None else float(nodata),
            **units,
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: nodata of a band must be a number, got {nodata!r}", "bad_item") from error


def _units(sensor: Sensor, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a band holds where the item says it: `terrapair:unit`, with scale and offset of STAC's raster extension.

    Without the unit, scale and offset are not looked at: catalogs of Sentinel-2 carry the 2022 offset there, also where the
    pixels do not. With it the sensors' own fill values no longer tell no data, so the item must.
    """
    unit = fields.get("terrapair:unit")
    if unit is None:
        return {}
    if unit not in UNITS[sensor]:
        raise DataError(
            f"{where}: terrapair:unit of {sensor} must be {' or '.join(UNITS[sensor])}, got {unit!r}", "bad_item"
        )
    if "nodata" not in fields:
        raise DataError(
            f"{where}: a band with terrapair:unit needs nodata: the stored value, or null when all are measurements, got none",
            "bad_item",
        )
    numbers = {name: fields.get(f"raster:{name}", default) for name, default in (("scale", 1.0), ("offset", 0.0))}
    for name, value in numbers.items():
        if type(value) not in (int, float) or not math.isfinite(value) or (name == "scale" and not value):
            raise DataError(
                f"{where}: raster:{name} of a band must be a number, scale not 0, got {value!r}", "bad_item"
            )
    return {"unit": unit, **numbers}


def _check_one_unit(bands: Mapping[str, BandSource], dn_offset: int | None, where: str) -> None:
    units = sorted({source.unit for source in bands.values()})
    if len(units) > 1:
        raise DataError(f"{where}: all bands must have one terrapair:unit, or none of them, got {units}", "bad_item")
    if units[0] and dn_offset:
        raise DataError(
            f"{where}: terrapair:dn_offset must be absent beside terrapair:unit, got {dn_offset}", "bad_item"
        )


def _label_source(item: pystac.Item, folder: Location, where: str) -> LabelSource | None:
    if "label" not in item.assets:
        return None
    asset = item.assets["label"]
    schema = asset.extra_fields.get("terrapair:label_schema")
    if not schema:
        raise DataError(f"{where}: asset 'label' lacks terrapair:label_schema", "bad_item")
    kind = asset.extra_fields.get("terrapair:label_kind", "hand")
    # A slip of the pen must not make a weak label one to measure on.
    if kind not in ("hand", "weak"):
        raise DataError(f"{where}: terrapair:label_kind must be hand or weak, got {kind!r}", "bad_item")
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
        raise DataError(f"{where}: assets must be local files or lie on {', '.join(SCHEMES)}, got {href}", "bad_item")
    return rest
