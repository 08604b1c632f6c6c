"""STAC items as public catalogs write them today, over small rasters.

Each function writes the rasters of one scene and returns the item as downloaded: the
keys of assets, the names of bands and the properties are those of the catalog, cut down
to what tells something. Hrefs start at the folder of the item.

Source: Earth Search v1 and the Planetary Computer STAC API; the examples of
stactools-packages/sentinel1 and sentinel2; the Copernicus Data Space STAC API.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.scenes.make_rasters import (
    backscatter,
    digital_numbers,
    footprint,
    north_up,
    write_geotiff,
)

EARTH_SEARCH_NAMES = {
    "blue": ("B2", "B02", 10),
    "green": ("B3", "B03", 10),
    "red": ("B4", "B04", 10),
    "rededge1": ("B5", "B05", 20),
    "nir": ("B8", "B08", 10),
    "nir08": ("B8A", "B8A", 20),
    "swir16": ("B11", "B11", 20),
}
"""Asset of Earth Search -> band, the agency's name of it, metres of a pixel."""
DATATAKE = "GS2A_{}T103631_041904_N{}"
URI = "S2A_MSIL2A_{}T103631_N{}_R008_T33TVL_{}T200058.SAFE"


def s2_bands(seed: int = 0, offset: int = 0, size: int = 64) -> dict[str, np.ndarray]:
    """Return digital numbers by band, uint16 [H, W]; bands of 20 m are half as large."""
    planes = digital_numbers(len(EARTH_SEARCH_NAMES), size, size, seed, offset)
    return {
        band: plane[:: pixel // 10, :: pixel // 10]
        for plane, (band, _, pixel) in zip(planes, EARTH_SEARCH_NAMES.values(), strict=True)
    }


def scene_classes(size: int = 32) -> np.ndarray:
    """Return a scene classification, uint8 [H, W], with cloud (9) in its western part."""
    classes = np.full((size, size), 4, np.uint8)
    classes[:, : size // 4] = 9
    classes[0] = 6
    return classes


def earth_search(folder: Path, pixels: dict[str, np.ndarray], **properties: Any) -> dict[str, Any]:
    """Write COGs of Earth Search v1 (sentinel-2-l2a) into `folder`; return the item."""
    assets: dict[str, Any] = {}
    for key, (band, agency, pixel) in EARTH_SEARCH_NAMES.items():
        write_geotiff(
            folder / f"{agency}.tif", pixels[band][None], transform=north_up(pixel), nodata=0
        )
        fields = {
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "eo:bands": [{"name": key, "common_name": key.rstrip("123")}],
            "gsd": pixel,
            "raster:bands": [
                {
                    "nodata": 0,
                    "data_type": "uint16",
                    "bits_per_sample": 15,
                    "spatial_resolution": pixel,
                    "scale": 0.0001,
                    "offset": -0.1,
                }
            ],
            "roles": ["data", "reflectance"],
        }
        assets[key] = {"href": f"./{agency}.tif", **fields}
        original = {**fields, "type": "image/jp2"}
        assets[f"{key}-jp2"] = {
            "href": f"s3://sentinel-s2-l2a/tiles/33/T/VL/2023/7/1/0/R{pixel}m/{agency}.jp2",
            **original,
        }
    classes = scene_classes()
    write_geotiff(folder / "SCL.tif", classes[None], transform=north_up(20), nodata=0)
    assets |= {
        "scl": {"href": "./SCL.tif", "raster:bands": [{"nodata": 0, "data_type": "uint8"}]},
        "scl-jp2": {"href": "s3://sentinel-s2-l2a/tiles/33/T/VL/2023/7/1/0/R20m/SCL.jp2"},
        "visual": {
            "href": "https://sentinel-cogs.s3.us-west-2.amazonaws.com/33/T/VL/TCI.tif",
            "eo:bands": [{"name": "red"}, {"name": "green"}, {"name": "blue"}],
            "roles": ["visual"],
        },
        "thumbnail": {"href": "https://example.com/preview.jpg", "roles": ["thumbnail"]},
    }
    found = {
        "datetime": "2023-07-01T10:46:30.262000Z",
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "eo:cloud_cover": 25.0,
        "proj:epsg": 32633,
        "grid:code": "MGRS-33TVL",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": "05.09",
        "s2:product_uri": URI.format("20230701", "0509", "20230701"),
        "s2:datatake_id": DATATAKE.format("20230701", "05.09"),
        "s2:sequence": "0",
        "earthsearch:boa_offset_applied": True,
        "processing:software": {"sentinel2-to-stac": "0.1.0"},
    }
    return _item(
        "S2A_33TVL_20230701_0_L2A",
        folder / "B02.tif",
        found | properties,
        assets,
        collection="sentinel-2-l2a",
    )


def make_stac_folder(folder: Path) -> Path:
    """Make a folder with one item of no collection beside its rasters."""
    item = earth_search(folder / "scene", s2_bands())
    del item["collection"]
    (folder / "scene" / "item.json").write_text(json.dumps(item))
    return folder


def planetary_computer(
    folder: Path, pixels: dict[str, np.ndarray], **properties: Any
) -> dict[str, Any]:
    """Write COGs of Planetary Computer (sentinel-2-l2a); return the item."""
    assets: dict[str, Any] = {}
    for key, (band, agency, pixel) in EARTH_SEARCH_NAMES.items():
        name = f"T33TVL_20210701T103631_{agency}_{pixel}m.tif"
        write_geotiff(folder / name, pixels[band][None], transform=north_up(pixel))
        assets[agency] = {
            "href": name,
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "gsd": pixel,
            "eo:bands": [{"name": agency, "common_name": key.rstrip("123")}],
            "roles": ["data"],
        }
    write_geotiff(folder / "SCL_20m.tif", scene_classes()[None], transform=north_up(20))
    assets |= {
        "SCL": {"href": "SCL_20m.tif", "roles": ["data"]},
        "visual": {
            "href": "https://sentinel2l2a01.blob.core.windows.net/TCI_10m.tif",
            "eo:bands": [{"name": "B04"}, {"name": "B03"}, {"name": "B02"}],
            "roles": ["data"],
        },
        "preview": {"href": "https://example.com/preview.tif", "roles": ["thumbnail"]},
    }
    found = {
        "datetime": "2021-07-01T10:36:31.024000Z",
        "platform": "Sentinel-2A",
        "constellation": "Sentinel 2",
        "instruments": ["msi"],
        "eo:cloud_cover": 25.0,
        "proj:epsg": 32633,
        "sat:orbit_state": "descending",
        "sat:relative_orbit": 8,
        "s2:mgrs_tile": "33TVL",
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": "03.01",
        "s2:product_uri": URI.format("20210701", "0301", "20210701"),
        "s2:datatake_id": DATATAKE.format("20210701", "03.01"),
    }
    return _item(
        "S2A_MSIL2A_20210701T103631_R008_T33TVL_20210701T200058",
        folder / assets["B02"]["href"],
        found | properties,
        assets,
        collection="sentinel-2-l2a",
    )


def data_space(folder: Path, pixels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write files of the Copernicus Data Space (STAC 1.1); return the item.

    Each asset has the place of the product on a server, and the path that its file has
    once the product is downloaded.
    """
    assets: dict[str, Any] = {}
    for key, (band, agency, pixel) in EARTH_SEARCH_NAMES.items():
        for size in (20, pixel):
            stem = f"T33TVL_20210701T103631_{agency}_{size}m.tif"
            stored = pixels[band][:: size // pixel, :: size // pixel]
            write_geotiff(
                folder / "IMG_DATA" / f"R{size}m" / stem, stored[None], transform=north_up(size)
            )
            assets[f"{agency}_{size}m"] = {
                "href": f"https://download.dataspace.copernicus.eu/odata/v1/{stem}",
                "file:local_path": f"IMG_DATA/R{size}m/{stem}",
                "nodata": 0,
                "data_type": "uint16",
                "raster:scale": 0.0001,
                "raster:offset": -0.1,
                "gsd": size,
                "bands": [{"name": agency, "eo:common_name": key.rstrip("123")}],
                "roles": ["data", "reflectance"],
            }
    write_geotiff(folder / "IMG_DATA/R20m/SCL.tif", scene_classes()[None], transform=north_up(20))
    for size in (20, 60):
        assets[f"SCL_{size}m"] = {
            "href": f"https://download.dataspace.copernicus.eu/odata/v1/SCL_{size}m.tif",
            "file:local_path": f"IMG_DATA/R{size}m/SCL.tif",
            "gsd": size,
        }
    item = _item(
        URI.format("20210701", "0301", "20210701").removesuffix(".SAFE"),
        folder / "IMG_DATA/R10m/T33TVL_20210701T103631_B02_10m.tif",
        {
            "datetime": "2021-07-01T10:36:31.024000Z",
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "eo:cloud_cover": 25.0,
            "proj:code": "EPSG:32633",
            "grid:code": "MGRS-33TVL",
            "processing:level": "L2",
            "processing:version": "03.01",
            "product:type": "S2MSI2A",
            "eopf:datatake_id": DATATAKE.format("20210701", "03.01"),
        },
        assets,
        collection="sentinel-2-l2a",
    )
    return item | {"stac_version": "1.1.0"}


def radar_rtc(folder: Path, seed: int = 0, size: int = 64) -> tuple[dict[str, Any], np.ndarray]:
    """Write gamma nought of Planetary Computer (sentinel-1-rtc) as linear power.

    Returns:
        The item, and the backscatter in dB [2, H, W] with NaN where there is no data.
    """
    db = backscatter(size, size, seed)
    db[:, :3, :5] = np.nan
    db[1, 10, 10] = np.nan
    power = np.where(np.isnan(db), -32768.0, 10.0 ** (db.astype(np.float64) / 10.0))
    assets: dict[str, Any] = {}
    for key, plane in zip(("vv", "vh"), power, strict=True):
        write_geotiff(folder / f"iw-{key}.rtc.tiff", plane[None].astype(np.float32))
        assets[key] = {
            "href": f"./iw-{key}.rtc.tiff",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": f"{key.upper()}: vertical transmit",
            "raster:bands": [
                {"nodata": -32768, "data_type": "float32", "spatial_resolution": 10.0}
            ],
            "roles": ["data"],
        }
    assets["tilejson"] = {"href": "https://example.com/tilejson.json", "roles": ["tiles"]}
    item = _item(
        "S1A_IW_GRDH_1SDV_20210701T051234_20210701T051259_049223_05EB3F_rtc",
        folder / "iw-vv.rtc.tiff",
        {
            "datetime": "2021-07-01T05:12:46.912000Z",
            "platform": "SENTINEL-1A",
            "constellation": "Sentinel-1",
            "sar:instrument_mode": "IW",
            "sar:polarizations": ["VV", "VH"],
            "sar:product_type": "GRD",
            "sat:orbit_state": "descending",
            "sat:relative_orbit": 22,
            "proj:epsg": 32633,
        },
        assets,
        collection="sentinel-1-rtc",
    )
    return item, db


def radar_grd(folder: Path) -> dict[str, Any]:
    """Write digital numbers in radar geometry (sentinel-1-grd); return the item."""
    stored = np.random.default_rng(0).integers(20, 900, (2, 64, 64)).astype(np.uint16)
    assets: dict[str, Any] = {}
    for key, plane in zip(("vv", "vh"), stored, strict=True):
        write_geotiff(folder / f"iw-{key}.tiff", plane[None])
        assets[key] = {"href": f"./iw-{key}.tiff", "roles": ["data"]}
        assets[f"schema-calibration-{key}"] = {"href": f"./{key}.xml", "roles": ["metadata"]}
    return _item(
        "S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13",
        folder / "iw-vv.tiff",
        {
            "datetime": "2021-08-09T17:40:05.653288Z",
            "platform": "SENTINEL-1A",
            "constellation": "Sentinel-1",
            "sar:product_type": "GRD",
            "proj:epsg": 4326,
        },
        assets,
        collection="sentinel-1-grd",
    )


def _item(
    name: str, reference: Path, properties: dict[str, Any], assets: dict[str, Any], collection: str
) -> dict[str, Any]:
    polygon = footprint(reference)
    longitudes, latitudes = zip(*polygon["coordinates"][0], strict=True)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": collection,
        "geometry": polygon,
        "bbox": [min(longitudes), min(latitudes), max(longitudes), max(latitudes)],
        "properties": properties,
        "links": [
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            {"rel": "self", "href": f"https://example.com/items/{name}"},
        ],
        "assets": assets,
    }
