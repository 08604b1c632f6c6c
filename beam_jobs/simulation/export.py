"""Write scenes as an Earth Engine export would: GeoTIFFs in UTM and STAC Items.

Input: arrays and their acquisition. Output: files below the place's folder, and STAC
Items as dicts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import rasterio

from beam_jobs.contracts.labels import IGNORE
from beam_jobs.rasters.geotiff import write_geotiff
from beam_jobs.simulation.acquisitions import Acquisition

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/sat/v1.0.0/schema.json",
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Rasters of one acquisition, ready to be written.

    Attributes:
        acquisition: sensor, time and place.
        data: [C, H, W]; float32 dB with NaN as no data, or uint16 with 0 as no data.
        band_names: C names in order.
        label: uint8 [H, W], ids of `dynamic_world`, 255 = no data.
        cloud_mask: uint8 [H, W], 1 cloud, 0 clear, 255 no data; None for radar.
        properties: further STAC properties of this scene.
    """

    acquisition: Acquisition
    data: npt.NDArray[Any]
    band_names: tuple[str, ...]
    label: npt.NDArray[np.uint8]
    cloud_mask: npt.NDArray[np.uint8] | None
    properties: Mapping[str, Any]


def write_scene(scene: Scene, output_dir: Path) -> dict[str, Any]:
    """Write the GeoTIFFs of a scene and return its STAC Item as a dict.

    The files lie below `output_dir/<place_id>`.

    Raises:
        rasterio.errors.RasterioIOError: a file cannot be written.
    """
    acquisition, place = scene.acquisition, scene.acquisition.place
    stem = f"{place.place_id}/{acquisition.scene_id}"
    nodata = float("nan") if scene.data.dtype == np.float32 else 0
    crs, transform = f"EPSG:{place.epsg}", rasterio.Affine(*place.transform)
    write_geotiff(output_dir / f"{stem}.tif", scene.data, crs, transform, nodata, scene.band_names)
    write_geotiff(
        output_dir / f"{stem}_label.tif", scene.label[None], crs, transform, IGNORE, ("label",)
    )
    if scene.cloud_mask is not None:
        write_geotiff(
            output_dir / f"{stem}_cloud.tif",
            scene.cloud_mask[None],
            crs,
            transform,
            IGNORE,
            ("cloud",),
        )
    return _stac_item(scene, stem)


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees all of it or nothing."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def item_line(item: Mapping[str, Any]) -> str:
    """Return one line of `items.ndjson`.

    The keys are sorted, so equal items give equal bytes.
    """
    return json.dumps(item, sort_keys=True, separators=(",", ":"))


def _stac_item(scene: Scene, stem: str) -> dict[str, Any]:
    """Return the STAC 1.0 Item of a scene.

    The hrefs are relative to the catalog file, which lies one folder above the place's.
    """
    acquisition, place = scene.acquisition, scene.acquisition.place
    ring = place.footprint()
    lon, lat = zip(*ring, strict=True)
    item = pystac.Item(
        id=acquisition.scene_id,
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=[min(lon), min(lat), max(lon), max(lat)],
        datetime=acquisition.acquired_at,
        properties={
            "platform": acquisition.platform,
            "sat:orbit_state": acquisition.orbit_state,
            "sat:relative_orbit": acquisition.relative_orbit,
            "proj:code": f"EPSG:{place.epsg}",
            "proj:transform": list(place.transform),
            "proj:shape": [place.size_px, place.size_px],
            "terrapair:place": place.place_id,
            "terrapair:source": "terrapair simulator",
            "license": "none: simulated",
            **scene.properties,
        },
        stac_extensions=list(_EXTENSIONS),
    )
    bands = {"bands": [{"name": name} for name in scene.band_names]}
    schema = {"terrapair:label_schema": "dynamic_world"}
    item.add_asset("data", _asset(f"{stem}.tif", "data", bands))
    item.add_asset("label", _asset(f"{stem}_label.tif", "labels", schema))
    if scene.cloud_mask is not None:
        item.add_asset("cloud_mask", _asset(f"{stem}_cloud.tif", "cloud", {}))
    result = item.to_dict(include_self_link=False, transform_hrefs=False)
    # pystac writes its newest version. Nothing here needs more than 1.0, which older
    # readers know.
    result["stac_version"] = "1.0.0"
    return result


def _asset(href: str, role: str, extra_fields: dict[str, Any]) -> pystac.Asset:
    return pystac.Asset(
        href=f"./{href}",
        media_type=pystac.MediaType.GEOTIFF,
        roles=[role],
        extra_fields=extra_fields,
    )
