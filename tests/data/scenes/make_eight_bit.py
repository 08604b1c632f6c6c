"""Make simulated scenes as 8-bit images.

Sentinel-1 has one polarization in linear power, and Sentinel-2 has three optical bands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from beam_jobs.config import SimulateConfig
from beam_jobs.simulation.simulate import simulate

MAX_POWER = 0.5
MAX_REFLECTANCE = 0.4
OPTICAL_BANDS = ("B4", "B3", "B2")
NODATA = 0
"""Stored value of missing pixels. Measured values begin at 1."""


def make_eight_bit(folder: Path, splits: tuple[str, ...], size_px: int) -> Path:
    """Write scenes of `size_px` pixels with a place per split; return the catalog."""
    items = simulate(
        SimulateConfig(num_places=len(splits), num_dates=1, size_px=size_px), folder
    ).read_text()
    catalog = folder / "eight_bit.ndjson"
    places: dict[str, str] = {}
    with catalog.open("w") as lines:
        for line in items.splitlines():
            item = json.loads(line)
            place = item["properties"]["terrapair:place"]
            item["properties"]["terrapair:split"] = places.setdefault(
                place, splits[len(places) % len(splits)]
            )
            lines.write(json.dumps(_eight_bit(item, folder)) + "\n")
    return catalog


def _eight_bit(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the item's pixels as 8 bits, and describe them in the item."""
    asset = item["assets"]["data"]
    is_radar = item["properties"]["constellation"] == "sentinel-1"
    names = [band["name"] for band in asset["bands"]]
    wanted = ("VV",) if is_radar else OPTICAL_BANDS
    path = folder / asset["href"]
    with rasterio.open(path) as dataset:
        profile, nodata = dataset.profile, dataset.nodata
        pixels = dataset.read([names.index(name) + 1 for name in wanted]).astype(np.float64)
    valid = np.isfinite(pixels) & (pixels != 0) & (pixels != nodata)
    top = MAX_POWER if is_radar else MAX_REFLECTANCE
    physical = 10 ** (pixels / 10) if is_radar else pixels / 10_000
    stored = np.where(valid, np.clip(np.rint(physical / top * 255), 1, 255), NODATA).astype(
        np.uint8
    )
    path = path.with_name(f"{path.stem}_8bit.tif")
    with rasterio.open(
        path, "w", **{**profile, "count": len(wanted), "dtype": "uint8", "nodata": None}
    ) as dataset:
        dataset.write(stored)
    item["properties"].pop("terrapair:dn_offset", None)
    asset.update(
        {
            "href": str(path.relative_to(folder)),
            "bands": [{"name": name} for name in wanted],
            "nodata": NODATA,
            "raster:scale": top / 255,
            "terrapair:unit": "power" if is_radar else "reflectance",
        }
    )
    return item
