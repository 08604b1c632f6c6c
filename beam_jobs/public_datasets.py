"""Public data sets as STAC items: folders in the TerraMesh and BigEarthNet layouts.

Input: a data set's folder. Output: pystac Items with absolute hrefs. Called by `catalogs.py`; a new data set is one more
function in READERS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import pystac
import rasterio
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from beam_jobs.contracts.bands import S1_DEFAULT_BANDS, S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.errors import DataError
from beam_jobs.grids import LONLAT

FolderLayout = Literal["terramesh", "bigearthnet"]


def terramesh(folder: Path) -> Iterator[pystac.Item]:
    """Items of a folder in the TerraMesh layout: S1RTC, S2L1C, S2L2A and LULC, one GeoTIFF per place in each.

    The file names give no bands and no dates: bands have the order of the data set's description, the radar's time is the
    `datetime` tag of S1RTC, the optical one that of LULC. L2A files carry no offset; whether an L1C file does is left to
    its pixels, because reprocessed files of any date may.

    Source: https://huggingface.co/datasets/ibm-esa-geospatial/TerraMesh
    """
    for path in sorted((folder / "S1RTC").glob("*.tif")):
        yield _item(
            f"S1RTC_{path.stem}",
            path,
            _tag_time(path),
            {"constellation": "sentinel-1", "sar:polarizations": list(S1_DEFAULT_BANDS), "sar:instrument_mode": "IW"},
            {"data": _asset(path, S1_DEFAULT_BANDS)},
        )
    for level, bands in (("L1C", S2_L1C_BANDS), ("L2A", S2_L2A_BANDS)):
        for path in sorted((folder / f"S2{level}").glob("*.tif")):
            label = folder / "LULC" / path.name
            if not label.exists():
                raise DataError(f"{path}: its time is in LULC/{path.name}, which is missing", "missing_file")
            properties: dict[str, Any] = {"constellation": "sentinel-2", "processing:level": level}
            if level == "L2A":
                properties["terrapair:dn_offset"] = 0
            assets = {"data": _asset(path, bands), "label": _asset(label)}
            # Id 0 of the data set means no data, so it must not reach a remap.
            assets["label"].extra_fields.update(
                {"terrapair:label_schema": "terramesh_lulc", "terrapair:label_nodata": 0}
            )
            yield _item(f"S2{level}_{path.stem}", path, _tag_time(label), properties, assets)


def bigearthnet(folder: Path) -> Iterator[pystac.Item]:
    """Items of a folder in the BigEarthNet layout: s1/<patch>/<patch>_VV.tif, s2/<patch>/<patch>_B02.tif, ...

    Times are in the JSON beside the bands. Sentinel-2 bands lie at 10, 20 and 60 m.

    Source: https://bigearth.net, BigEarthNet-MM v1.0 guide.
    """
    for patch in sorted(path for path in (folder / "s1").iterdir() if path.is_dir()):
        assets = {name: _asset(patch / f"{patch.name}_{name}.tif") for name in S1_DEFAULT_BANDS}
        properties: dict[str, Any] = {
            "constellation": "sentinel-1",
            "platform": f"sentinel-{patch.name[1:3].lower()}",
            "sar:polarizations": list(S1_DEFAULT_BANDS),
            "sar:instrument_mode": "IW",
        }
        reference = patch / f"{patch.name}_VV.tif"
        yield _item(patch.name, reference, _metadata_time(patch, "acquisition_time"), properties, assets)
    for patch in sorted(path for path in (folder / "s2").iterdir() if path.is_dir()):
        # File names write B01 where Earth Engine writes B1.
        files = {name: patch / f"{patch.name}_{_two_digits(name)}.tif" for name in S2_L2A_BANDS}
        properties = {
            "constellation": "sentinel-2",
            "platform": f"sentinel-{patch.name[1:3].lower()}",
            "processing:level": "L2A",
            # All scenes are from 2017-2018, before the offset, and the archive was not reprocessed.
            "terrapair:dn_offset": 0,
        }
        assets = {name: _asset(path) for name, path in files.items()}
        yield _item(patch.name, files["B2"], _metadata_time(patch, "acquisition_date"), properties, assets)


READERS: dict[FolderLayout, Callable[[Path], Iterator[pystac.Item]]] = {
    "terramesh": terramesh,
    "bigearthnet": bigearthnet,
}


def detect(folder: Path) -> FolderLayout | None:
    """The layout of a folder, or None when it has none that is known."""
    if (folder / "S1RTC").is_dir() and ((folder / "S2L1C").is_dir() or (folder / "S2L2A").is_dir()):
        return "terramesh"
    if (folder / "s1").is_dir() and (folder / "s2").is_dir():
        return "bigearthnet"
    return None


def _two_digits(band: str) -> str:
    return band if band == "B8A" else f"B{int(band[1:]):02d}"


def _time(text: object, what: str, path: Path) -> datetime:
    """UTC time of ISO text without a zone, which both data sets leave out."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise DataError(f"{path}: {what} must be an ISO time, got {text!r}", "bad_item") from error


def _tag_time(path: Path) -> datetime:
    with _open(path) as dataset:
        text = dataset.tags().get("datetime")
    if not text:
        raise DataError(f"{path}: lacks the tag 'datetime' of the TerraMesh layout", "bad_item")
    # The tags have nanoseconds, which Python's datetime does not read.
    return _time(text.split(".")[0], "the tag 'datetime'", path)


def _metadata_time(patch: Path, key: str) -> datetime:
    path = patch / f"{patch.name}_labels_metadata.json"
    try:
        metadata = dict(json.loads(path.read_text()))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}", "missing_file") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: not a JSON object: {error}", "bad_item") from error
    return _time(metadata.get(key), key, path)


def _open(path: Path) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise DataError(f"{path}: cannot open the raster: {error}", "unreadable_raster") from error


def _asset(path: Path, bands: tuple[str, ...] = ()) -> pystac.Asset:
    extra: dict[str, Any] = {"bands": [{"name": name} for name in bands]} if bands else {}
    if path.exists():
        # The size makes the catalog's hash change when a file is replaced.
        extra["file:size"] = path.stat().st_size
    return pystac.Asset(href=str(path), media_type=pystac.MediaType.GEOTIFF, extra_fields=extra)


def _item(
    item_id: str, reference: Path, acquired_at: datetime, properties: dict[str, Any], assets: dict[str, pystac.Asset]
) -> pystac.Item:
    """A STAC item whose geometry and projection come from the raster `reference`."""
    with _open(reference) as dataset:
        if dataset.crs is None:
            raise DataError(f"{reference}: the raster has no CRS", "missing_crs")
        bounds = transform_bounds(dataset.crs, LONLAT, *dataset.bounds)
        projection = {
            "proj:code": dataset.crs.to_string(),
            "proj:transform": list(dataset.transform)[:6],
            "proj:shape": list(dataset.shape),
        }
    item = pystac.Item(
        id=item_id,
        geometry=mapping(box(*bounds)),
        bbox=list(bounds),
        datetime=acquired_at,
        properties={**properties, **projection},
    )
    for name, asset in assets.items():
        item.add_asset(name, asset)
    return item
