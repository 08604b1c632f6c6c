"""Scene: one acquisition of one sensor, parsed from its STAC item.

Input: STAC items of a catalog as JSON. Output: Scene. Its rasters are not opened here:
`inspection.inspect` checks the scene against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from beam_jobs.scenes import assets, hrefs, label_assets, products
from beam_jobs.scenes.assets import BandSource
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.label_assets import LabelSource
from beam_jobs.scenes.products import constellation_of

SENSOR_OF_CONSTELLATION: dict[str, Sensor] = {"sentinel-1": "s1", "sentinel-2": "s2"}
OTHER_SENSOR: dict[Sensor, Sensor] = {"s1": "s2", "s2": "s1"}
"""The partner of each sensor."""

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
        acquisition: what all Sentinel-2 products of one datatake and tile share; ""
            when not declared.
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
        label: raster or vector file of the label, if any.
        cloud_mask: path of a uint8 raster, if any.
        cloud_mask_index: 1-based band of the cloud mask in its file.
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
    acquisition: str = ""
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
    cloud_mask_index: int = 1
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
        """The paths of all files of the scene: bands, label and cloud mask."""
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


def from_item(values: Mapping[str, Any], catalog: Location, *, allow_http: bool = False) -> Scene:
    """Return the Scene of a STAC item.

    Args:
        values: the item as JSON.
        catalog: the catalog file; relative hrefs start at its folder.
        allow_http: take assets on web servers. Otherwise bands there are left out if
            other bands are at hand, as in an item that was downloaded in part.

    Raises:
        DataError: the item is not valid STAC, lacks a time or a footprint, has an
            unknown constellation, or its assets have no known bands. The message names
            everything that is missing or wrong.
    """
    item = _parse(values, catalog)
    where = f"{catalog}: item {item.id}"
    refused = item.properties.get(REFUSED)
    if isinstance(refused, Mapping):
        reason = str(refused.get("reason"))
        raise DataError(
            str(refused.get("detail", where)), reason if is_reason(reason) else "bad_item"
        )
    problems = _Problems(where)
    sensor = problems.gather(lambda: _sensor(item.properties, where))
    problems.gather(lambda: _check_time_and_place(item, where))
    fields = _fields(item, where, problems)
    if sensor is not None:
        fields |= _sensor_fields(item, sensor, catalog.parent, problems, where)
        if not allow_http:
            fields["bands"] = _at_hand(fields["bands"])
    fields["label"] = problems.gather(
        lambda: label_assets.label_source(item, catalog.parent, where)
    )
    fields |= problems.gather(lambda: assets.cloud_mask(item, catalog.parent, where)) or {}
    problems.raise_if_any()
    scene = Scene(scene_id=item.id, sensor=sensor, **fields)
    if not allow_http:
        hrefs.check_web(scene.paths, where)
    return scene


def _at_hand(bands: Mapping[str, BandSource] | None) -> Mapping[str, BandSource] | None:
    """Return the bands that are not on a web server; all of them if there is none."""
    near = {n: source for n, source in (bands or {}).items() if not hrefs.on_web(source.path)}
    return near or bands


class _Problems:
    """Collect the faults of an item, so that one message names all of them.

    Attributes:
        where: catalog and item, the beginning of each message.
        found: the errors so far.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.found: list[DataError] = []

    def gather(self, check: Callable[[], Any]) -> Any:
        """Return what `check` returns; if it raises, keep the error and return None."""
        try:
            return check()
        except DataError as error:
            self.found.append(error)
            return None

    def raise_if_any(self) -> None:
        """Raise one DataError with the messages and the reason of the first."""
        if self.found:
            texts = [str(error).removeprefix(f"{self.where}: ") for error in self.found]
            raise DataError(f"{self.where}: {'; '.join(texts)}", self.found[0].reason)


def _parse(values: Mapping[str, Any], catalog: Location) -> pystac.Item:
    """Return the item that `values` are.

    Raises:
        DataError: they are none, or lack what every STAC item has.
    """
    named = values.get("id")
    where = f"{catalog}: item {named}" if named else str(catalog)
    missing = [name for name in ("id", "geometry", "properties", "assets") if name not in values]
    if missing:
        raise DataError(f"{where}: not a STAC item: lacks {', '.join(missing)}", "bad_item")
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
        detail = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{where}: not a STAC item: {detail}", "bad_item") from error
    if not isinstance(item.id, str) or not item.id:
        raise DataError(f"{catalog}: an item needs an id of text, got {item.id!r}", "bad_item")
    return item


def _sensor(properties: Mapping[str, Any], where: str) -> Sensor:
    constellation = constellation_of(properties)
    if constellation not in SENSOR_OF_CONSTELLATION:
        raise DataError(
            f"{where}: constellation must be sentinel-1 or sentinel-2, got {constellation!r}",
            "bad_item",
        )
    platform = products.platform_of(properties)
    if platform not in ("", constellation):
        raise DataError(
            f"{where}: constellation {properties.get('constellation')!r} and platform "
            f"{properties.get('platform')!r} contradict each other",
            "bad_item",
        )
    return SENSOR_OF_CONSTELLATION[constellation]


def _check_time_and_place(item: pystac.Item, where: str) -> None:
    missing = []
    if item.datetime is None or item.datetime.tzinfo is None:
        missing.append("a datetime with a time zone")
    if item.geometry is None:
        missing.append("a geometry")
    if missing:
        raise DataError(f"{where}: needs {' and '.join(missing)}", "bad_item")


def _fields(item: pystac.Item, where: str, problems: _Problems) -> dict[str, Any]:
    """Return the fields of a Scene that both sensors have."""
    properties = item.properties
    orbit_state = str(properties.get("sat:orbit_state", "unknown")).lower()
    return {
        "acquired_at": int(item.datetime.timestamp()) if item.datetime else 0,
        "orbit_state": orbit_state if orbit_state in ("ascending", "descending") else "unknown",
        "relative_orbit": problems.gather(lambda: _relative_orbit(properties, where)),
        "footprint": problems.gather(lambda: _footprint(item.geometry, where)),
        "declared_crs": _declared_crs(properties),
        "dn_offset": problems.gather(lambda: _dn_offset(properties, where)),
        "polarizations_checked": problems.gather(lambda: _polarizations_checked(properties, where)),
        "cloud_fraction": problems.gather(lambda: _cloud_fraction(properties, where)),
        "split": problems.gather(lambda: _split(properties, where)),
        "event": str(properties.get("terrapair:event") or ""),
        "source": str(properties.get("terrapair:source") or item.collection_id or "unknown"),
        "license": str(properties.get("license") or "unknown"),
    }


def _sensor_fields(
    item: pystac.Item, sensor: Sensor, folder: Location, problems: _Problems, where: str
) -> dict[str, Any]:
    """Return the fields of a Scene that depend on its sensor."""
    properties = item.properties
    bands = problems.gather(lambda: assets.band_sources(item, sensor, folder, where))
    fields: dict[str, Any] = {"bands": bands}
    if bands:
        offset = properties.get("terrapair:dn_offset")
        problems.gather(lambda: assets.check_one_unit(bands, offset, where))
    if sensor == "s1":
        return fields
    applied = products.is_offset_applied(properties)
    if applied and bands:
        originals = problems.gather(lambda: assets.shows_originals(item, sensor, folder, where))
        applied = None if originals else applied
    return fields | {
        "processing_level": problems.gather(
            lambda: products.processing_level(properties, item.collection_id, where)
        ),
        "processing_baseline": problems.gather(
            lambda: products.processing_baseline(properties, where)
        ),
        "is_offset_applied": applied,
        "acquisition": products.acquisition(properties, item.id),
    }


def _footprint(geometry: Mapping[str, Any] | None, where: str) -> Mapping[str, Any] | None:
    """Return the geometry if it is valid and not empty; pairing needs its extent."""
    if geometry is None:
        return None
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
