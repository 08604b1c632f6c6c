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
SCALE_TOLERANCE = 0.005
"""Largest deviation of a metre of a CRS from a metre on the ground.

UTM deviates by at most 0.1 % within its zone and by 0.5 % in the middle of the next
one. Web Mercator deviates by 100 % at 60 degrees north.

Source: Snyder 1987, Map projections: a working manual, USGS Professional Paper 1395.
"""
UPS_FROM_DEGREES = (-80.0, 84.0)
"""Latitudes beyond which polar stereographic coordinates take the place of UTM.

Source: NGA.SIG.0012, The universal grids and the transverse Mercator and polar
stereographic map projections.
"""
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


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """Return the conversion of (x, y) between two CRS; degrees are (lon, lat)."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def to_lonlat(
    crs: str, x: npt.ArrayLike, y: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Convert coordinates in `crs` to (lon, lat) in degrees; shapes are kept."""
    lon, lat = transformer(crs, LONLAT).transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def from_lonlat(crs: str, lon: float, lat: float) -> tuple[float, float]:
    """Convert a place in degrees to its (x, y) in `crs`."""
    x, y = transformer(LONLAT, crs).transform(lon, lat)
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


def ground_crs(lon: float, lat: float) -> str:
    """Return the EPSG code of the CRS in which a metre is a metre on the ground.

    It is the UTM zone of the place, or universal polar stereographic near the poles.
    """
    south, north = UPS_FROM_DEGREES
    if south <= lat <= north:
        return utm_crs((lon + 180.0) % 360.0 - 180.0, lat)
    return "EPSG:5041" if lat > 0 else "EPSG:5042"


def is_singular(transform: Affine) -> bool:
    """Return whether the pixels of a transform have no area, or nearly none.

    Source: GDALInvGeoTransform in GDAL, which does not invert such a transform.
    """
    size = max(abs(value) for value in (transform.a, transform.b, transform.d, transform.e))
    # Not a power, which raises an error for huge numbers.
    return not abs(transform.determinant) > 1e-10 * size * size


def is_metric(grid: Grid) -> bool:
    """Return whether a metre of the grid's CRS is a metre on the ground everywhere.

    Measured along both axes and diagonals, at the centre and the corners. Degrees,
    feet, and projections that stretch or shear the place are not metric.
    """
    if not CRS.from_string(grid.crs).is_projected:
        return False
    a, b, _, d, e, _ = grid.transform
    corners = [(0, 0), (0, grid.width), (grid.height, 0), (grid.height, grid.width)]
    places = [(grid.height / 2, grid.width / 2), *corners]
    # Ten pixels are long enough for exact lengths and short beside any distortion.
    for step in ((10.0, 0.0), (0.0, 10.0), (10.0, 10.0), (10.0, -10.0)):
        one = np.array([grid.affine * (col, row) for row, col in places])
        two = np.array([grid.affine * (col + step[0], row + step[1]) for row, col in places])
        in_crs = math.hypot(step[0] * a + step[1] * b, step[0] * d + step[1] * e)
        on_ground = _GEOD.inv(*to_lonlat(grid.crs, *one.T), *to_lonlat(grid.crs, *two.T))[2]
        deviation = np.abs(np.asarray(on_ground) / in_crs - 1.0)
        if not (deviation <= SCALE_TOLERANCE).all():
            return False
    return True


_GEOD = pyproj.Geod(ellps="WGS84")


def common_grid(reference: Grid, other: Grid, pixel_size_m: float) -> Grid | None:
    """Return the grid in metres of what both scenes cover, or None if they are apart.

    Args:
        reference: decides CRS and pixel corners if its CRS has metres on the ground.
            Sentinel-2 is the reference, since its tiles are the archive's grid. Any
            other CRS is replaced by `ground_crs` of the reference's centre.
        other: the second scene, in any CRS.
        pixel_size_m: of the result, on the ground.
    """
    crs, (x0, y0) = reference.crs, (reference.transform[2], reference.transform[5])
    if not is_metric(reference):
        xmin, ymin, xmax, ymax = reference.bounds
        lon, lat = to_lonlat(crs, (xmin + xmax) / 2, (ymin + ymax) / 2)
        crs, (x0, y0) = ground_crs(float(lon), float(lat)), (0.0, 0.0)
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
