"""Write small rasters, and make the scenes that refer to them.

No raster is constant, so errors show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from beam_jobs.contracts.bands import S2_L1C_BANDS, S2_L2A_BANDS
from beam_jobs.scenes.assets import BandSource
from beam_jobs.scenes.grids import Grid
from beam_jobs.scenes.scene import Scene

UTM = "EPSG:32633"
XMIN, YMAX = 500_000.0, 5_000_000.0
"""Upper left corner of the scenes: lon 15, lat 45.15, inside UTM zone 33."""


def north_up(pixel_size: float = 10.0, x: float = XMIN, y: float = YMAX) -> Affine:
    """Return the transform of a north-up raster with square pixels."""
    return Affine(pixel_size, 0.0, x, 0.0, -pixel_size, y)


def grid(height: int, width: int, *, dx: float = 0.0, dy: float = 0.0) -> Grid:
    """Return a grid of 10 m that begins `dx` metres east and `dy` south of the scenes."""
    transform = tuple(north_up(x=XMIN + dx, y=YMAX - dy))[:6]
    return Grid(crs=UTM, transform=transform, height=height, width=width)


def write_geotiff(
    path: Path,
    pixels: np.ndarray,
    *,
    transform: Affine | None = None,
    crs: str | None = UTM,
    nodata: float | None = None,
    descriptions: Sequence[str] = (),
    tags: dict[str, str] | None = None,
    **layout: Any,
) -> Path:
    """Write pixels [C, H, W] as a GeoTIFF, and return its path.

    Without `layout`, creation options of GDAL such as `tiled`, it is not compressed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype,
        crs=crs,
        transform=transform or north_up(),
        nodata=nodata,
        **layout,
    ) as dataset:
        dataset.write(pixels)
        for index, text in enumerate(descriptions, start=1):
            dataset.set_band_description(index, text)
        dataset.update_tags(**(tags or {}))
    return path


def footprint(path: Path, crs: str = UTM) -> dict[str, Any]:
    """Return the lon/lat polygon of a raster, as the geometry of an item."""
    with rasterio.open(path) as dataset:
        return mapping(box(*transform_bounds(crs, "EPSG:4326", *dataset.bounds)))


def backscatter(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return VV and VH in dB, float32 [2, H, W], about -25 to -5."""
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(-18.0, -5.0, (2, height, width)) - np.array([0.0, 7.0])[:, None, None]
    ).astype(np.float32)


def digital_numbers(
    bands: int, height: int, width: int, seed: int = 0, offset: int = 0
) -> np.ndarray:
    """Return Sentinel-2 digital numbers, uint16 [C, H, W], 200 to 4000 plus `offset`.

    If there are 13 bands, B10 is dark, as in real images.
    """
    rng = np.random.default_rng(seed)
    dn = rng.integers(200, 4000, (bands, height, width))
    if bands == len(S2_L1C_BANDS):
        dn[S2_L1C_BANDS.index("B10")] = rng.integers(5, 40, (height, width))
    return (dn + offset).astype(np.uint16)


def s1_scene(
    path: Path, pixels: np.ndarray, *, acquired_at: int = 1_600_000_000, **writing: Any
) -> Scene:
    """Write a file of VV and VH, and return its Sentinel-1 scene."""
    crs = writing.get("crs", UTM)
    write_geotiff(path, pixels, **writing)
    return Scene(
        scene_id=path.stem,
        sensor="s1",
        acquired_at=acquired_at,
        orbit_state="descending",
        footprint=footprint(path, crs or UTM),
        bands={
            name: BandSource(path=str(path), index=i)
            for i, name in enumerate(("VV", "VH")[: len(pixels)], 1)
        },
    )


def s2_scene(
    path: Path,
    pixels: np.ndarray,
    *,
    acquired_at: int = 1_600_007_200,
    dn_offset: int | None = None,
    cloud_fraction: float = math.nan,
    **writing: Any,
) -> Scene:
    """Write a file of 13 (L1C) or 12 (L2A) bands, and return its Sentinel-2 scene."""
    crs = writing.get("crs", UTM)
    write_geotiff(path, pixels, **writing)
    names = S2_L1C_BANDS if len(pixels) == len(S2_L1C_BANDS) else S2_L2A_BANDS
    return Scene(
        scene_id=path.stem,
        sensor="s2",
        acquired_at=acquired_at,
        processing_level="L1C" if names == S2_L1C_BANDS else "L2A",
        dn_offset=dn_offset,
        cloud_fraction=cloud_fraction,
        footprint=footprint(path, crs or UTM),
        bands={
            name: BandSource(path=str(path), index=i)
            for i, name in enumerate(names[: len(pixels)], 1)
        },
    )
