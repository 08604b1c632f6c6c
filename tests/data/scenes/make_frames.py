"""Write whole frames of satellites, some rows at a time, and a catalog of them.

A tile of random structures is repeated over the frame. A frame may lie askew in its
raster, as those of Sentinel-1 do. Then the corners have no data. Bright squares at
known places tell whether a map lies where it should.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from rasterio import Affine
from rasterio.warp import transform_geom
from rasterio.windows import Window
from scipy import ndimage

from beam_jobs.catalogs import catalog

UTM = "EPSG:32633"
NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
TARGET_PX = 24
"""Side of the bright squares."""
_TILE_PX = 512
_NUM_ROWS = 512
_ACQUIRED = datetime.datetime(2023, 9, 18, 17, 19, 37, tzinfo=datetime.timezone.utc)
_PROPERTIES: dict[str, dict[str, Any]] = {
    "s1": {"constellation": "sentinel-1", "sat:orbit_state": "ascending"},
    "s2": {
        "constellation": "sentinel-2",
        "processing:level": "L2A",
        "terrapair:dn_offset": 0,
        "eo:cloud_cover": 0.0,
    },
}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of one sensor.

    Attributes:
        name: of the scene.
        bands: of Sentinel-1 in dB, or of Sentinel-2 in digital numbers.
        height: rows of the raster.
        width: columns of the raster.
        askew: share of each side of the raster between its corner and the corner of the
            frame that lies on this side; 0 = the frame fills the raster.
        targets: row and column of the middles of bright squares.
        transform: of the raster, in UTM.
    """

    name: str
    bands: Sequence[str]
    height: int
    width: int
    askew: float = 0.0
    targets: Sequence[tuple[int, int]] = ()
    transform: Affine = NORTH_UP

    @property
    def sensor(self) -> str:
        """The sensor that has the bands."""
        return "s1" if self.bands[0].startswith("V") else "s2"

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Column and row of the corners of the frame, in pixels of the raster."""
        shares = ((self.askew, 0), (1, self.askew), (1 - self.askew, 1), (0, 1 - self.askew))
        return [(x * self.width, y * self.height) for x, y in shares]

    def valid_mask(self, rows: slice) -> np.ndarray:
        """Return bool [h, W], True inside the frame."""
        y = np.arange(rows.start, rows.stop)[:, np.newaxis] + 0.5
        x = np.arange(self.width) + 0.5
        inside = np.ones((rows.stop - rows.start, self.width), bool)
        for (x0, y0), (x1, y1) in zip(self.corners, np.roll(self.corners, -1, 0), strict=True):
            inside &= (x1 - x0) * (y - y0) >= (y1 - y0) * (x - x0)
        return inside

    def pixels(self, rows: slice) -> np.ndarray:
        """Return rows as they are stored, [C, h, W]; float32 or uint16."""
        at_rows = np.arange(rows.start, rows.stop) % _TILE_PX
        at_cols = np.arange(self.width) % _TILE_PX
        found = self._tile[:, at_rows[:, np.newaxis], at_cols]
        half = TARGET_PX // 2
        bright = 10.0 if self.sensor == "s1" else 9000
        for row, col in self.targets:
            first, last = (max(row + side - rows.start, 0) for side in (-half, half))
            found[:, first:last, col - half : col + half] = bright
        nothing = np.nan if self.sensor == "s1" else 0
        return np.where(self.valid_mask(rows), found, np.array(nothing, found.dtype))

    @cached_property
    def _tile(self) -> np.ndarray:
        rng = np.random.default_rng(len(self.bands))
        smooth = ndimage.gaussian_filter(rng.normal(size=(_TILE_PX, _TILE_PX)), 12, mode="wrap")
        speckle = rng.normal(size=(len(self.bands), _TILE_PX, _TILE_PX))
        if self.sensor == "s1":
            # Whole steps of half a decibel, so that the files are not too large.
            db = np.where(smooth > 0, -9.0, -20.0) + 1.5 * speckle
            return (np.rint(2 * db) / 2).astype(np.float32)
        dn = np.where(smooth > 0, 1800.0, 500.0) + 60 * speckle
        return (16 * np.rint(dn / 16)).astype(np.uint16)


def write(folder: Path, frames: Sequence[Frame]) -> Path:
    """Write the rasters of frames as tiled GeoTIFFs, and return their catalog."""
    for frame in frames:
        with rasterio.open(
            folder / f"{frame.name}.tif",
            "w",
            driver="GTiff",
            count=len(frame.bands),
            height=frame.height,
            width=frame.width,
            dtype=frame.pixels(slice(0, 1)).dtype,
            crs=UTM,
            transform=frame.transform,
            nodata=None if frame.sensor == "s1" else 0,
            tiled=True,
            blockxsize=512,
            blockysize=512,
            compress="deflate",
            zlevel=1,
            bigtiff="if_safer",
        ) as file:
            for first in range(0, frame.height, _NUM_ROWS):
                rows = slice(first, min(first + _NUM_ROWS, frame.height))
                at = Window(0, first, frame.width, rows.stop - rows.start)
                file.write(frame.pixels(rows), window=at)
    target = folder / "items.ndjson"
    catalog.write_items([_item(frame) for frame in frames], target)
    return target


def _item(frame: Frame) -> pystac.Item:
    ring = [frame.transform * corner for corner in frame.corners]
    outline = transform_geom(UTM, "EPSG:4326", shapely.geometry.mapping(shapely.Polygon(ring)))
    item = pystac.Item(
        id=frame.name,
        geometry=outline,
        bbox=list(shapely.geometry.shape(outline).bounds),
        datetime=_ACQUIRED,
        properties=_PROPERTIES[frame.sensor],
    )
    bands = {"bands": [{"name": name} for name in frame.bands]}
    item.add_asset("data", pystac.Asset(href=f"./{frame.name}.tif", extra_fields=bands))
    return item
