"""Scene: one acquisition of one sensor, parsed from its STAC item.

Input: STAC items of a catalog as JSON. Output: Scene. Its rasters are not opened here:
`inspection.inspect` checks the scene against them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pystac
import shapely
from shapely.geometry import shape

from beam_jobs.contracts.bands import S2_BASELINE_0400_DN_OFFSET, OrbitState, Sensor
from beam_jobs.contracts.layout import SPLITS
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.reasons import is_reason
from beam_jobs.errors import DataError
from beam_jobs.scenes import assets
from beam_jobs.scenes.assets import BandSource, LabelSource
from beam_jobs.scenes.grids import Grid

SENSOR_OF_CONSTELLATION: dict[str, Sensor] = {"sentinel-1": "s1", "sentinel-2": "s2"}
OTHER_SENSOR: dict[Sensor, Sensor] = {"s1": "s2", "s2": "s1"}
"""The partner of each sensor."""

_BASELINE = re.compile(r"N?(\d{2})\.?(\d{2})")
_BASELINE_OF_PRODUCT = re.compile(r"_N(\d{2})(\d{2})_")
REFUSED = "terrapair:refused"
"""Property of an item whose files could not be read when the catalog was written.

Its value is {"reason": ..., "detail": ...}.
"""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One acquisition of one sensor.

    Attributes:
        scene_id: id of the STAC item.
        sensor: "s1" or "s2".
        acquired_at: seconds since 1970, UTC.
        orbit_state: direction of the pass; "unknown" when the item does not declare it.
        relative_orbit: number of the repeating track; None when not declared.
        processing_level: "L1C" or "L2A" for Sentinel-2, "" for Sentinel-1.
        footprint: GeoJSON polygon, lon/lat.
        declared_crs: `proj:code` of the item, if any.
        dn_offset: offset in the Sentinel-2 digital numbers; None when not declared, so
            that the pixels must show it.
        processing_baseline: of a Sentinel-2 product, as in "04.00"; None when not
            declared. From 04.00 on, products carry the offset of 1000 unless the
            catalog removed it.
        is_offset_applied: whether the catalog says that the offset is already removed
            from the stored pixels (True), or that it is not (False); None when it says
            neither.
        polarizations_checked: whether the item declares that its polarizations are not
            swapped, so that the pixels are not asked.
        cloud_fraction: of the whole scene, 0-1; NaN when not declared.
        split: the data set's own split of the scene, which overrides the split of its
            blocks; None when not declared.
        event: name of the event that the scene was chosen for (`terrapair:event`); ""
            when not declared.
        holdouts: names of the hold-outs whose property the item has.
        source: data set of the scene (`terrapair:source`, or the item's collection);
            "unknown" when not declared.
        license: STAC's `license`; "unknown" when not declared.
        bands: band name -> where the band is stored.
        label: label raster, if any.
        cloud_mask: path of a uint8 raster, if any.
        clear_values: values of the cloud mask that mean clear; any other value is
            cloud, shadow or unknown.
        grid: grid of the band with the finest pixels; None until `inspection.inspect`.
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
    processing_baseline: str | None = None
    is_offset_applied: bool | None = None
    polarizations_checked: bool = False
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
        """Whether this stands for a scene that does not exist; see `absent_partner`."""
        return not self.scene_id

    @property
    def declares_units(self) -> bool:
        """Whether the item declares units; then nothing is guessed from pixels."""
        return any(source.unit for source in self.bands.values())

    @property
    def paths(self) -> set[str]:
        """The paths of all rasters of the scene."""
        side = [self.label.path if self.label else None, self.cloud_mask]
        return {source.path for source in self.bands.values()} | {path for path in side if path}


def absent_partner(scene: Scene) -> Scene:
    """Return the stand-in for the missing partner of an inspected `scene`.

    It has the other sensor, the same time and grid, no id and no bands.
    """
    return Scene(
        scene_id="",
        sensor=OTHER_SENSOR[scene.sensor],
        acquired_at=scene.acquired_at,
        footprint=scene.footprint,
        bands={},
        grid=scene.grid,
    )


def from_item(values: Mapping[str, Any], catalog: Location) -> Scene:
    """Return the Scene of a STAC item.

    Args:
        values: the item as JSON.
        catalog: the catalog file; relative hrefs start at its folder.

    Raises:
        DataError: the item is not valid STAC, lacks a time or a footprint, has an
            unknown constellation, or its assets have no known bands.
    """
    try:
        item = pystac.Item.from_dict(dict(values), migrate=False, preserve_dict=False)
    except (
        pystac.STACError,
        pystac.STACTypeError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(f"{catalog}: not a STAC item: {error}", "bad_item") from error
    if not item.id:
        raise DataError(f"{catalog}: an item needs an id, got {item.id!r}", "bad_item")
    where = f"{catalog}: item {item.id}"
    refused = item.properties.get(REFUSED)
    if isinstance(refused, Mapping):
        reason = str(refused.get("reason"))
        raise DataError(
            str(refused.get("detail", where)), reason if is_reason(reason) else "bad_item"
        )
    constellation = constellation_of(item.properties)
    if constellation not in SENSOR_OF_CONSTELLATION:
        raise DataError(
            f"{where}: constellation must be sentinel-1 or sentinel-2, got {constellation!r}",
            "bad_item",
        )
    if item.datetime is None or item.datetime.tzinfo is None or item.geometry is None:
        raise DataError(f"{where}: needs a datetime with a time zone and a geometry", "bad_item")
    sensor = SENSOR_OF_CONSTELLATION[constellation]
    properties = item.properties
    orbit_state = str(properties.get("sat:orbit_state", "unknown")).lower()
    dn_offset = _dn_offset(properties, where)
    bands = assets.band_sources(item, sensor, catalog.parent, where)
    assets.check_one_unit(bands, dn_offset, where)
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
        processing_baseline=processing_baseline(properties, where) if sensor == "s2" else None,
        is_offset_applied=_is_offset_applied(properties),
        polarizations_checked=_polarizations_checked(properties, where),
        cloud_fraction=_cloud_fraction(properties, where),
        split=_split(properties, where),
        event=str(properties.get("terrapair:event") or ""),
        source=str(properties.get("terrapair:source") or item.collection_id or "unknown"),
        license=str(properties.get("license") or "unknown"),
        bands=bands,
        label=assets.label_source(item, catalog.parent, where),
        **assets.cloud_mask(item, catalog.parent, where),
    )


def _footprint(geometry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the geometry if it is valid and not empty; pairing needs its extent."""
    try:
        empty = shape(geometry).is_empty
    except (
        shapely.errors.ShapelyError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
    ) as error:
        raise DataError(f"{where}: its geometry is not GeoJSON: {error}", "bad_item") from error
    if empty:
        raise DataError(f"{where}: its geometry is empty", "bad_item")
    return geometry


def _dn_offset(properties: Mapping[str, Any], where: str) -> int | None:
    offset = properties.get("terrapair:dn_offset")
    # Product metadata write -1000 (BOA_ADD_OFFSET). With that sign the offset would be
    # added instead of removed.
    if offset not in (None, 0, S2_BASELINE_0400_DN_OFFSET):
        raise DataError(
            f"{where}: terrapair:dn_offset must be 0 or 1000, got {offset!r}", "bad_item"
        )
    return None if offset is None else int(offset)


def processing_baseline(properties: Mapping[str, Any], where: str) -> str | None:
    """Return the processing baseline of a Sentinel-2 product as "NN.NN", or None.

    The first of `s2:processing_baseline`, `processing:version` and the name of the
    product (`s2:product_uri`, N0509) that gives one is taken. `processing:version` of
    another form is the version of a program and is ignored.

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
    )
    return f"{found[1]}.{found[2]}" if found else None


def _is_offset_applied(properties: Mapping[str, Any]) -> bool | None:
    """Return `earthsearch:boa_offset_applied`: the catalog removed the offset itself.

    Source: https://github.com/Element84/earth-search, Sentinel-2 collections.
    """
    applied = properties.get("earthsearch:boa_offset_applied")
    return applied if isinstance(applied, bool) else None


def _polarizations_checked(properties: Mapping[str, Any], where: str) -> bool:
    checked = properties.get("terrapair:polarizations_checked", False)
    if not isinstance(checked, bool):
        raise DataError(
            f"{where}: terrapair:polarizations_checked must be true or false, got {checked!r}",
            "bad_item",
        )
    return checked


def _cloud_fraction(properties: Mapping[str, Any], where: str) -> float:
    cover = properties.get("eo:cloud_cover")
    if cover is None:
        return float("nan")
    if not isinstance(cover, (int, float)) or not 0 <= cover <= 100:
        raise DataError(f"{where}: eo:cloud_cover must be 0-100, got {cover!r}", "bad_item")
    return cover / 100.0


def constellation_of(properties: Mapping[str, Any]) -> str:
    """Return the constellation of an item's properties, lower case.

    It is taken from `constellation`, or from `platform` ("sentinel-1a" gives
    "sentinel-1").
    """
    named = (
        properties.get("constellation") or str(properties.get("platform", ""))[: len("sentinel-1")]
    )
    return str(named).lower()


def _relative_orbit(properties: Mapping[str, Any], where: str) -> int | None:
    number = properties.get("sat:relative_orbit")
    if number is not None and (
        isinstance(number, bool) or not isinstance(number, int) or number < 1
    ):
        raise DataError(
            f"{where}: sat:relative_orbit must be a whole number from 1, got {number!r}", "bad_item"
        )
    return number


def _split(properties: Mapping[str, Any], where: str) -> str | None:
    split = properties.get("terrapair:split")
    if split not in (None, *SPLITS):
        raise DataError(
            f"{where}: terrapair:split must be one of {', '.join(SPLITS)}, got {split!r}",
            "bad_item",
        )
    return split


def _declared_crs(properties: Mapping[str, Any]) -> str | None:
    """Return `proj:code` of STAC projection 2.0, or its predecessor `proj:epsg`."""
    if properties.get("proj:code"):
        return str(properties["proj:code"])
    return f"EPSG:{properties['proj:epsg']}" if properties.get("proj:epsg") else None


def _processing_level(properties: Mapping[str, Any], where: str) -> Literal["L1C", "L2A"]:
    level = str(properties.get("processing:level", "")).upper()
    if level not in ("L1C", "L2A"):
        raise DataError(f"{where}: processing:level must be L1C or L2A, got {level!r}", "bad_item")
    return "L1C" if level == "L1C" else "L2A"
