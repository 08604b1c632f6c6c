"""Resampling: pixels from a raster's own grid onto the common grid of a pair.

Input: planes with NaN as no data, and where they lie. Output: planes on a Grid. NumPy
around rasterio's warper.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.warp import Resampling, reproject

from beam_jobs.contracts.records import FloatArray
from beam_jobs.scenes import radiometry
from beam_jobs.scenes.grids import Grid

Source = tuple[str, Affine]
"""CRS and affine transform of the pixels that were read."""


def backscatter_to_grid(backscatter_db: FloatArray, source: Source, grid: Grid) -> FloatArray:
    """Resample backscatter float32 [C, h, w] in dB to [C, H, W] in dB on `grid`.

    Interpolation is done in linear power, because energies add and decibels do not.
    """
    if aligned_offset(source, grid) is not None:
        return reflectance_to_grid(backscatter_db, source, grid)
    power = radiometry.db_to_power(backscatter_db).astype(np.float32)
    return radiometry.power_to_db(reflectance_to_grid(power, source, grid)).astype(np.float32)


def reflectance_to_grid(values: FloatArray, source: Source, grid: Grid) -> FloatArray:
    """Resample linear values float32 [C, h, w] to [C, H, W] on `grid`, bilinear.

    NaN is no data. Pixels outside the source become NaN. Pixels that are already
    aligned with `grid` are copied without interpolation. A target pixel is valid
    exactly where its nearest source pixel is valid.
    """
    offset = aligned_offset(source, grid)
    if offset is not None:
        return _cut(values, *offset, grid, np.nan)
    planes = []
    for plane in values:
        smooth = _reproject(plane, source, grid, Resampling.bilinear)
        # Bilinear interpolation skips NaN neighbours, so it would widen the image into
        # no data. The nearest source pixel decides instead.
        nearest = _reproject(plane, source, grid, Resampling.nearest)
        planes.append(np.where(np.isfinite(smooth) & np.isfinite(nearest), smooth, nearest))
    return np.stack(planes)


def ids_to_grid(
    ids: npt.NDArray[np.uint8], source: Source, grid: Grid, fill: int
) -> npt.NDArray[np.uint8]:
    """Resample ids uint8 [h, w] to [H, W] on `grid`, nearest neighbour.

    Pixels outside the source become `fill`.
    """
    offset = aligned_offset(source, grid) if ids.size else (0, 0)
    if offset is not None:
        return _cut(ids, *offset, grid, fill)
    # Mark "outside" by NaN in float32: 0 and 255 are meaningful ids in some schema.
    values = _reproject(ids.astype(np.float32), source, grid, Resampling.nearest)
    return np.where(np.isfinite(values), values, fill).astype(np.uint8)


def aligned_offset(source: Source, grid: Grid) -> tuple[int, int] | None:
    """Return (row, col) of the grid's first pixel in an aligned source, or None.

    Aligned means the same CRS, pixel size and pixel corners.
    """
    crs, transform = source
    a, b, _, d, e, _ = grid.transform
    if crs != grid.crs or not np.allclose(
        (transform.a, transform.b, transform.d, transform.e), (a, b, d, e)
    ):
        return None
    col, row = ~transform * (grid.transform[2], grid.transform[5])
    if abs(col - round(col)) > 1e-3 or abs(row - round(row)) > 1e-3:
        return None
    return round(row), round(col)


def _cut(planes: npt.NDArray[Any], row: int, col: int, grid: Grid, fill: float) -> npt.NDArray[Any]:
    """Return the grid's part of aligned planes [..., h, w]; `fill` outside of them.

    Nothing is copied when the planes cover the whole grid.
    """
    row0, col0 = max(row, 0), max(col, 0)
    row1, col1 = min(row + grid.height, planes.shape[-2]), min(col + grid.width, planes.shape[-1])
    covered = planes[..., row0:row1, col0:col1]
    if covered.shape[-2:] == (grid.height, grid.width):
        return covered
    result = np.full((*planes.shape[:-2], grid.height, grid.width), fill, planes.dtype)
    if row1 > row0 and col1 > col0:
        result[..., row0 - row : row1 - row, col0 - col : col1 - col] = covered
    return result


def full_turn(crs: CRS) -> float | None:
    """Return 360 degrees in the units of a CRS, or None if it is not in degrees."""
    return 2 * math.pi / crs.units_factor[1] if crs.is_geographic else None


def _reproject(plane: FloatArray, source: Source, grid: Grid, resampling: Resampling) -> FloatArray:
    """Resample a plane, also one in degrees that goes beyond 180."""
    crs, transform = source
    result = _reprojected(plane, source, grid, resampling)
    turn = full_turn(CRS.from_string(crs))
    if turn is None:
        return result
    # The grid's longitudes are within -180 to 180. GDAL finds them in a raster beyond
    # that for some projections only, so the raster is put on the other side too.
    height, width = plane.shape
    east = [(transform * (col, row))[0] for col in (0, width) for row in (0, height)]
    for is_beyond, shift in ((max(east) > turn / 2, -turn), (min(east) < -turn / 2, turn)):
        if is_beyond and not np.isfinite(result).all():
            moved = Affine.translation(shift, 0.0) * transform
            other = _reprojected(plane, (crs, moved), grid, resampling)
            result = np.where(np.isfinite(result), result, other)
    return result


def _reprojected(
    plane: FloatArray, source: Source, grid: Grid, resampling: Resampling
) -> FloatArray:
    result = np.full((grid.height, grid.width), np.nan, np.float32)
    reproject(
        plane,
        result,
        src_crs=source[0],
        src_transform=source[1],
        src_nodata=np.nan,
        dst_crs=grid.crs,
        dst_transform=grid.affine,
        dst_nodata=np.nan,
        resampling=resampling,
        # GDAL would place pixels of another CRS by interpolation, off by up to an
        # eighth of a pixel. One label in thirty is then that of the next pixel.
        tolerance=0.0,
    )
    return result
