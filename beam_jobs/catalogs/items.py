"""STAC items and assets over rasters, for all layouts.

Input: paths, times and properties that a layout found. Output: pystac Assets and Items
with absolute hrefs. Layouts know names and dates; this module opens the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pystac
from rasterio.warp import transform_bounds
from shapely.geometry import mapping

from beam_jobs.config import ProcessingLevel
from beam_jobs.contracts.bands import S1_DEFAULT_BANDS
from beam_jobs.errors import DataError
from beam_jobs.rasters.opening import open_raster, split_member
from beam_jobs.scenes import footprints
from beam_jobs.scenes.grids import LONLAT
from beam_jobs.scenes.label_assets import LabelKind
from beam_jobs.scenes.scene import REFUSED

NOMINAL_TIME = {"terrapair:time_is_nominal": True}
"""Property of items whose data set publishes only the day, month or season.

A time gap between two such items is not a measurement.
"""


_MEDIA_TYPES = {
    ".json": "application/vnd.tfrecord; profile=earth-engine",
    ".tfrecord": "application/vnd.tfrecord",
    ".tfrecord.gz": "application/vnd.tfrecord+gzip",
    ".zarr.zip": "application/vnd+zarr",
    ".tar": "application/x-tar",
}
"""End of a file's name -> media type; any other file is a GeoTIFF."""


def radar(
    properties: Mapping[str, Any] | None = None, bands: Sequence[str] = S1_DEFAULT_BANDS
) -> dict[str, Any]:
    """Return the properties of a Sentinel-1 item in IW mode, and `properties`."""
    fixed = {
        "constellation": "sentinel-1",
        "sar:polarizations": list(bands),
        "sar:instrument_mode": "IW",
    }
    return {**fixed, **(properties or {})}


def optical(
    level: ProcessingLevel, dn_offset: int | None, properties: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the properties of a Sentinel-2 item, joined with `properties`.

    Args:
        level: processing level.
        dn_offset: offset in the digital numbers; None if the pixels must show it.
        properties: further ones.
    """
    declared = {} if dn_offset is None else {"terrapair:dn_offset": dn_offset}
    return {
        "constellation": "sentinel-2",
        "processing:level": level,
        **declared,
        **(properties or {}),
    }


def asset(path: Path | str, bands: Sequence[str] | Mapping[str, int | str] = ()) -> pystac.Asset:
    """Return the asset of a raster.

    Args:
        path: of the file; `#<member>` names one raster of a file that holds many. The
            file may be missing: the build reports it.
        bands: names in the order of the file; or, if the file holds other bands too or
            spells them differently, name -> 1-based index or the file's own name.
    """
    if isinstance(bands, Mapping):
        place = {int: "terrapair:index", str: "terrapair:key"}
        listed: list[dict[str, Any]] = [
            {"name": name, place[type(where)]: where} for name, where in bands.items()
        ]
    else:
        listed = [{"name": name} for name in bands]
    extra: dict[str, Any] = {"bands": listed} if listed else {}
    file = Path(split_member(str(path))[0])
    if file.exists():
        # With the size, the catalog's hash changes when a file is replaced.
        extra["file:size"] = file.stat().st_size
    return pystac.Asset(href=str(path), media_type=_media_type(file.name), extra_fields=extra)


def _media_type(name: str) -> str:
    return next(
        (kind for end, kind in _MEDIA_TYPES.items() if name.endswith(end)), pystac.MediaType.GEOTIFF
    )


def label(
    path: Path | str,
    schema: str,
    nodata: int | None,
    kind: LabelKind = "hand",
    index: int | None = None,
) -> pystac.Asset:
    """Return the asset of a label raster.

    Args:
        path: as in `asset`.
        schema: name of the schema of its ids.
        nodata: id that means no label, which must not be remapped; None if there is
            none.
        kind: "hand" or "weak".
        index: 1-based band with the ids; None = the file has only one band.
    """
    found = asset(path)
    found.extra_fields["terrapair:label_schema"] = schema
    if nodata is not None:
        found.extra_fields["terrapair:label_nodata"] = nodata
    if index is not None:
        found.extra_fields["terrapair:index"] = index
    if kind != "hand":
        found.extra_fields["terrapair:label_kind"] = kind
    return found


def item(
    item_id: str,
    reference: Path | str,
    acquired_at: datetime | Callable[[], datetime],
    properties: dict[str, Any],
    assets: dict[str, pystac.Asset],
) -> pystac.Item:
    """Return a STAC item with the geometry and projection of the raster `reference`.

    If the raster cannot be read, the item carries `terrapair:refused` (reason, detail),
    and the build rejects it like any other bad scene. One bad file must not end the
    catalog of a whole data set.

    Args:
        item_id: id of the scene.
        reference: raster that tells where the scene is.
        acquired_at: the time, or a function that reads it from the scene's own files.
        properties: of the item.
        assets: of the item.
    """
    try:
        acquired_at = acquired_at() if callable(acquired_at) else acquired_at
        with open_raster(str(reference)) as dataset:
            if dataset.crs is None:
                raise DataError(f"{reference}: the raster has no CRS", "missing_crs")
            bounds = transform_bounds(dataset.crs, LONLAT, *dataset.bounds)
            footprint = footprints.of_bounds(dataset.crs.to_string(), dataset.bounds)
            projection = {
                "proj:code": dataset.crs.to_string(),
                "proj:transform": list(dataset.transform)[:6],
                "proj:shape": [dataset.height, dataset.width],
            }
    except DataError as error:
        return refused(item_id, properties, error)
    found = pystac.Item(
        id=item_id,
        geometry=mapping(footprint),
        bbox=list(bounds),
        datetime=acquired_at,
        properties={**properties, **projection},
    )
    for name, value in assets.items():
        found.add_asset(name, value)
    return found


def refused(
    item_id: str,
    properties: dict[str, Any],
    error: DataError,
    assets: Mapping[str, pystac.Asset] | None = None,
) -> pystac.Item:
    """Return the item of a scene that a build must reject, with the reason.

    Args:
        item_id: id of the scene.
        properties: of the item.
        error: why it must be rejected.
        assets: of the item, if they can be viewed nevertheless.
    """
    why = {REFUSED: {"reason": error.reason, "detail": str(error)}}
    # STAC requires a time; this one is never read.
    found = pystac.Item(
        item_id, None, None, datetime.fromtimestamp(0, timezone.utc), {**properties, **why}
    )
    for name, value in (assets or {}).items():
        found.add_asset(name, value)
    return found


def utc_time(text: object, what: str, path: Path) -> datetime:
    """Return the UTC time of ISO text without a zone.

    Args:
        text: the time; data sets leave out its zone.
        what: name of the value in messages.
        path: file of the value, for messages.

    Raises:
        DataError: the text is not an ISO time.
    """
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise DataError(f"{path}: {what} must be an ISO time, got {text!r}", "bad_item") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DataError: the file is missing or holds something else.
    """
    try:
        return dict(json.loads(path.read_text()))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}", "missing_file") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: not a JSON object: {error}", "bad_item") from error
