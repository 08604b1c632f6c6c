"""Planes of pixels on a requested grid, and Earth Engine's file formats.

Input: a GeoTIFF of the simulator and a Grid. Output: masked arrays by nearest
neighbour; bytes of a GeoTIFF or an NPY.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from rasterio.io import MemoryFile
from rasterio.windows import Window

from beam_jobs.emulator.errors import RequestError
from beam_jobs.rasters.sources import open_dataset
from beam_jobs.scenes.grids import Grid

Plane = np.ma.MaskedArray
"""Pixels [H, W] of one band; masked = no data, as in an image's mask in Earth Engine.
"""


def band_names(path: str) -> tuple[str, ...]:
    """Return the descriptions of a GeoTIFF's bands."""
    with open_dataset(path) as dataset:
        return tuple(dataset.descriptions)


# The bands of one request read the same pixels one after the other, so keep them.
@lru_cache(maxsize=32)
def sample(path: str, grid: Grid) -> Plane:
    """Return all bands of a file on `grid`, [C, H, W] of the file's dtype.

    Each pixel is the file's pixel under the centre of the grid's pixel (nearest
    neighbour, Earth Engine's default). Pixels outside of the file, of its no-data value
    and NaN are masked.
    """
    with open_dataset(path) as dataset:
        at = _pixels_at_centres(grid, dataset.crs.to_string(), dataset.transform, dataset.shape)
        rows, cols, inside = at.rows, at.cols, at.inside
        result = np.ma.masked_all((dataset.count, grid.height, grid.width), dataset.dtypes[0])
        if inside.any():
            first_row, first_col = int(rows[inside].min()), int(cols[inside].min())
            height, width = (
                int(rows[inside].max()) + 1 - first_row,
                int(cols[inside].max()) + 1 - first_col,
            )
            pixels = dataset.read(window=Window(first_col, first_row, width, height))
            result[:, inside] = pixels[:, rows[inside] - first_row, cols[inside] - first_col]
        nodata = dataset.nodata
    values = result.data
    missing = np.isnan(values) if nodata is not None and np.isnan(nodata) else values == nodata
    result.mask |= missing
    result.mask.setflags(write=False)
    return result


@dataclass(frozen=True)
class _FilePixels:
    """Pixels of a file that lie under the pixel centres of a grid.

    Attributes:
        rows: int64 [H, W], rows in the file; 0 outside of it.
        cols: int64 [H, W], columns in the file; 0 outside of it.
        inside: bool [H, W], True where the file has a pixel.
    """

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    inside: npt.NDArray[np.bool_]


def _pixels_at_centres(
    grid: Grid, crs: str, transform: rasterio.Affine, shape: tuple[int, int]
) -> _FilePixels:
    """Return the file's pixel under each pixel centre of the grid."""
    col, row = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.affine * (col, row)
    if grid.crs != crs:
        x, y = pyproj.Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y)
    file_col, file_row = ~transform * (np.asarray(x), np.asarray(y))
    with np.errstate(invalid="ignore"):
        rows, cols = np.floor(file_row), np.floor(file_col)
        inside = (rows >= 0) & (rows < shape[0]) & (cols >= 0) & (cols < shape[1])
    return _FilePixels(
        np.where(inside, rows, 0).astype(np.int64),
        np.where(inside, cols, 0).astype(np.int64),
        inside,
    )


def geotiff(
    planes: Sequence[Plane], names: Sequence[str], grid: Grid, nodata: float | None = None
) -> bytes:
    """Return a GeoTIFF of the planes.

    Masked pixels become `nodata`, or 0 without one, as Earth Engine writes them.

    Raises:
        RequestError: the planes differ in dtype, which one GeoTIFF cannot hold.
    """
    dtypes = [plane.dtype.name for plane in planes]
    if len(set(dtypes)) > 1:
        raise RequestError(
            400,
            f"Exported bands must have compatible data types; "
            f"found inconsistent types: {', '.join(dtypes)}.",
        )
    with MemoryFile() as file:
        with file.open(
            driver="GTiff",
            count=len(planes),
            height=grid.height,
            width=grid.width,
            dtype=dtypes[0],
            crs=grid.crs,
            transform=grid.affine,
            nodata=nodata,
            compress="lzw",
        ) as dataset:
            dataset.write(
                np.stack([plane.filled(0 if nodata is None else nodata) for plane in planes])
            )
            dataset.descriptions = tuple(names)
        return bytes(file.read())


def npy(planes: Sequence[Plane], names: Sequence[str]) -> bytes:
    """Return an NPY file of a structured array [H, W] with one field a band.

    Masked pixels are 0.
    """
    array = np.zeros(
        planes[0].shape, [(name, plane.dtype) for name, plane in zip(names, planes, strict=True)]
    )
    for name, plane in zip(names, planes, strict=True):
        array[name] = plane.filled(0)
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
