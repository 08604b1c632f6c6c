"""Grids: where pixels lie on Earth. Pure geometry.

Input: CRS, affine transforms and shapes of two scenes. Output: their common Grid in
metres, its strips and the windows of its patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

LONLAT = "EPSG:4326"
Bounds = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in the units of a CRS."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A raster grid.

    Attributes:
        crs: coordinate system as text, for example "EPSG:32633".
        transform: affine transform in rasterio's order (a, b, c, d, e, f).
        height: rows in pixels.
        width: columns in pixels.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    height: int
    width: int

    @property
    def affine(self) -> Affine:
        """The transform as a rasterio Affine."""
        return Affine(*self.transform)

    @property
    def bounds(self) -> Bounds:
        """The outer bounds in the units of the CRS."""
        a, b, c, d, e, f = self.transform
        corners = [(col, row) for col in (0, self.width) for row in (0, self.height)]
        xs, ys = (
            [a * col + b * row + c for col, row in corners],
            [d * col + e * row + f for col, row in corners],
        )
        return min(xs), min(ys), max(xs), max(ys)

    def window(self, row: int, col: int, height: int, width: int) -> Grid:
        """Return the part of the grid that begins at pixel (row, col)."""
        a, b, c, d, e, f = self.transform
        corner = (a, b, a * col + b * row + c, d, e, d * col + e * row + f)
        return replace(self, transform=corner, height=height, width=width)


@lru_cache(maxsize=64)
def _lonlat_transformer(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs, LONLAT, always_xy=True)


def to_lonlat(
    crs: str, x: npt.ArrayLike, y: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Convert coordinates in `crs` to (lon, lat) in degrees; shapes are kept."""
    lon, lat = _lonlat_transformer(crs).transform(x, y)
    return np.asarray(lon), np.asarray(lat)


@lru_cache(maxsize=128)
def _from_lonlat_transformer(crs: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(LONLAT, crs, always_xy=True)


def from_lonlat(crs: str, lon: float, lat: float) -> tuple[float, float]:
    """Convert a place in degrees to its (x, y) in `crs`."""
    x, y = _from_lonlat_transformer(crs).transform(lon, lat)
    return float(x), float(y)


def lonlat_bounds(crs: str, bounds: Bounds) -> Bounds:
    """Convert bounds in `crs` to degrees; east is above 180 across the antimeridian."""
    xmin, ymin, xmax, ymax = transform_bounds(crs, LONLAT, *bounds)
    # Across the antimeridian, GDAL returns a west that is larger than the east.
    return xmin, ymin, xmax if xmin <= xmax else xmax + 360.0, ymax


def utm_crs(lon: float, lat: float) -> str:
    """Return the EPSG code of a place's UTM zone, for example "EPSG:32633".

    Source: zone = floor((lon + 180) / 6) + 1; 326xx north, 327xx south.
    """
    zone = min(int((lon + 180.0) // 6.0) + 1, 60)
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def common_grid(reference: Grid, other: Grid, pixel_size_m: float) -> Grid | None:
    """Return the grid in metres of what both scenes cover, or None if they are apart.

    Args:
        reference: decides CRS and pixel corners when it is projected. Sentinel-2 is the
            reference, since its tiles are the archive's grid. A grid in degrees is
            replaced by the UTM zone of its centre.
        other: the second scene, in any CRS.
        pixel_size_m: of the result.
    """
    crs, (x0, y0) = reference.crs, (reference.transform[2], reference.transform[5])
    if not CRS.from_string(crs).is_projected:
        xmin, ymin, xmax, ymax = lonlat_bounds(crs, reference.bounds)
        lon = (xmin + xmax) / 2
        # Longitudes of a raster may go beyond 180, or from 0 to 360.
        lon = lon if -180.0 <= lon <= 180.0 else (lon + 180.0) % 360.0 - 180.0
        crs, (x0, y0) = utm_crs(lon, (ymin + ymax) / 2), (0.0, 0.0)
    boxes = [transform_bounds(grid.crs, crs, *grid.bounds) for grid in (reference, other)]
    xmin, ymin = (max(box[i] for box in boxes) for i in (0, 1))
    xmax, ymax = (min(box[i] for box in boxes) for i in (2, 3))
    # Snap inwards to the reference's pixel corners: aligned scenes are then read
    # without resampling.
    col0, col1 = (
        math.ceil((xmin - x0) / pixel_size_m - 1e-6),
        math.floor((xmax - x0) / pixel_size_m + 1e-6),
    )
    row0, row1 = (
        math.ceil((y0 - ymax) / pixel_size_m - 1e-6),
        math.floor((y0 - ymin) / pixel_size_m + 1e-6),
    )
    if col1 <= col0 or row1 <= row0:
        return None
    return Grid(
        crs=crs,
        transform=(
            pixel_size_m,
            0.0,
            x0 + col0 * pixel_size_m,
            0.0,
            -pixel_size_m,
            y0 - row0 * pixel_size_m,
        ),
        height=row1 - row0,
        width=col1 - col0,
    )


def strips(grid: Grid, patch_size_px: int, max_pixels: int = 1 << 20) -> Iterator[Grid]:
    """Yield horizontal strips of whole patch rows, each of at most about `max_pixels`.

    A strip is what a worker holds in memory at a time.
    """
    patch_rows = grid.height // patch_size_px
    rows_per_strip = max(1, max_pixels // (grid.width * patch_size_px))
    for first in range(0, patch_rows, rows_per_strip):
        height = min(rows_per_strip, patch_rows - first) * patch_size_px
        yield grid.window(first * patch_size_px, 0, height, grid.width)


@dataclass(frozen=True, kw_only=True)
class PatchWindow:
    """One patch of a strip.

    Attributes:
        row: first row of the patch within the strip.
        col: first column of the patch within the strip.
        grid: the patch's own grid.
    """

    row: int
    col: int
    grid: Grid

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The index of the patch's pixels in an array [H, W, ...] of the strip."""
        return (
            slice(self.row, self.row + self.grid.height),
            slice(self.col, self.col + self.grid.width),
        )


def patch_windows(strip: Grid, patch_size_px: int) -> list[PatchWindow]:
    """Return the windows of all whole patches of a strip, row by row.

    A remainder at the right edge that is narrower than a patch is left out.
    """
    return [
        PatchWindow(row=row, col=col, grid=strip.window(row, col, patch_size_px, patch_size_px))
        for row in range(0, strip.height - patch_size_px + 1, patch_size_px)
        for col in range(0, strip.width - patch_size_px + 1, patch_size_px)
    ]


def centre_and_corners(patch: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return (lon [5], lat [5]) in degrees: first the centre, then the four corners."""
    xmin, ymin, xmax, ymax = patch.bounds
    x = np.array([(xmin + xmax) / 2, xmin, xmax, xmax, xmin])
    y = np.array([(ymin + ymax) / 2, ymin, ymin, ymax, ymax])
    return to_lonlat(patch.crs, x, y)
