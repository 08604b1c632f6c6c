"""Scene: one acquisition of one sensor, as a STAC item describes it; the element of the first half of every build.

Input: STAC item dicts of a catalog. Output: Scene, still unchecked against its rasters (`readers.inspect` does that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pystac
import shapely
from shapely.geometry import shape

from beam_jobs.contracts.bands import BANDS, S2_BASELINE_0400_DN_OFFSET, Sensor
from beam_jobs.contracts.layout import SPLITS
from beam_jobs.contracts.records import OrbitState
from beam_jobs.errors import DataError
from beam_jobs.grids import Grid

SENSOR_OF_CONSTELLATION: dict[str, Sensor] = {"sentinel-1": "s1", "sentinel-2": "s2"}


SCL_CLOUD_IDS = (3, 8, 9, 10)
"""Classes of Sentinel-2's scene classification that hide the ground: cloud shadow, cloud of medium and of high probability,
thin cirrus. Source: ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document, scene classification."""
REFUSED = "terrapair:refused"
"""Property of an item whose files could not be read when its catalog was written: {"reason": ..., "detail": ...}."""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """Where a band's pixels are: raster file and 1-based band index."""

    path: str
    index: int


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A label raster: file, name of its schema, and the value that means no label (besides 255)."""

    path: str
    schema: str
    nodata: int | None


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
        bands: band name -> where it is.
        label: label raster, if any.
        cloud_mask: path of a uint8 raster that tells where cloud is, if any.
        cloud_ids: values of it that mean cloud; None = all but 0.
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
    bands: Mapping[str, BandSource] = field(repr=False)
    label: LabelSource | None = None
    cloud_mask: str | None = None
    cloud_ids: tuple[int, ...] | None = None
    grid: Grid | None = None

    @property
    def paths(self) -> set[str]:
        """All rasters of the scene."""
        side = [self.label.path if self.label else None, self.cloud_mask]
        return {source.path for source in self.bands.values()} | {path for path in side if path}


def from_item(values: Mapping[str, Any], catalog: Path) -> Scene:
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
    return Scene(
        scene_id=item.id,
        sensor=sensor,
        acquired_at=int(item.datetime.timestamp()),
        orbit_state=orbit_state if orbit_state in ("ascending", "descending") else "unknown",  # type: ignore[arg-type]
        relative_orbit=_relative_orbit(properties, where),
        processing_level=_processing_level(properties, where) if sensor == "s2" else "",
        footprint=_footprint(item.geometry, where),
        declared_crs=_declared_crs(properties),
        dn_offset=_dn_offset(properties, where),
        cloud_fraction=_cloud_fraction(properties, where),
        split=_split(properties, where),
        bands=_band_sources(item, sensor, catalog.parent, where),
        label=_label_source(item, catalog.parent, where),
        **_cloud_mask(item, catalog.parent, where),
    )


def _cloud_mask(item: pystac.Item, folder: Path, where: str) -> dict[str, Any]:
    """Where the scene's cloud mask is and which values of it mean cloud.

    Asset `cloud_mask` is a mask of its own, by default with 0 as clear; `terrapair:cloud_ids` lists the values that mean
    cloud where it holds classes. Asset `scl` is the scene classification of a Level-2A product, used where the other lacks.
    """
    name = next((name for name in ("cloud_mask", "scl") if name in item.assets), None)
    if name is None:
        return {}
    listed = item.assets[name].extra_fields.get("terrapair:cloud_ids")
    if listed is not None and not (
        isinstance(listed, list) and listed and all(type(value) is int and 0 <= value <= 255 for value in listed)
    ):
        raise DataError(f"{where}: terrapair:cloud_ids must be whole numbers of 0-255, got {listed!r}", "bad_item")
    default = SCL_CLOUD_IDS if name == "scl" else None
    path = _resolve(item.assets[name].href, folder, where)
    return {"cloud_mask": path, "cloud_ids": default if listed is None else tuple(listed)}


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


def _band_sources(item: pystac.Item, sensor: Sensor, folder: Path, where: str) -> dict[str, BandSource]:
    """Bands of the `data` asset in the order it names them, or one asset per band.

    A band may say where it is (`terrapair:index`, 1-based), as it must in a file that holds other bands between them.
    """
    if "data" not in item.assets:
        sources = {
            name: BandSource(path=_resolve(asset.href, folder, where), index=1)
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
    indexes = [band.get("terrapair:index", position) for position, band in enumerate(listed, start=1)]
    if not all(type(index) is int and index >= 1 for index in indexes) or len(set(indexes)) != len(indexes):
        raise DataError(
            f"{where}: the terrapair:index of bands must be distinct whole numbers from 1, got {indexes}",
            "unknown_band_order",
        )
    return {name: BandSource(path=path, index=index) for name, index in zip(names, indexes, strict=True)}


def _label_source(item: pystac.Item, folder: Path, where: str) -> LabelSource | None:
    if "label" not in item.assets:
        return None
    asset = item.assets["label"]
    schema = asset.extra_fields.get("terrapair:label_schema")
    if not schema:
        raise DataError(f"{where}: asset 'label' lacks terrapair:label_schema", "bad_item")
    return LabelSource(
        path=_resolve(asset.href, folder, where),
        schema=str(schema),
        nodata=asset.extra_fields.get("terrapair:label_nodata"),
    )


def _resolve(href: str, folder: Path, where: str) -> str:
    """Path of an asset; relative ones are relative to the catalog."""
    scheme, separator, rest = href.partition("://")
    if not separator:
        return str(folder / href)
    if scheme != "file":
        raise DataError(f"{where}: assets must be local files, got {href}", "bad_item")
    return rest
