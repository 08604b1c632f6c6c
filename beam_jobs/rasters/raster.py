"""Raster: the protocol behind which every file with pixels is read.

`gdal.py` implements it for files that GDAL reads. Other formats derive from GridRaster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

Pixels = npt.NDArray[Any]
Valid = npt.NDArray[np.bool_]


class Raster(Protocol):
    """A file with pixels.

    A file can hide pixels in two ways, and both mean no data. `nodata_values` are
    stored numbers. `read_valid` tells what masks say: a mask inside the file or beside
    it, or an alpha band.

    Attributes:
        name: the path it was opened by, for messages.
        crs: None when the pixels have no place on Earth.
        transform: affine, pixel corner (column, row) -> CRS.
        height: rows.
        width: columns.
        descriptions: names of the bands in the file, in the order of their 1-based
            indexes; None where unnamed.
        nodata_values: per band, the stored value that means no data; None where the
            file declares none.
        alpha_index: 1-based index of the band that tells how opaque the pixels are;
            None = there is none. It is no band of data unless a catalog lists it.
        block_shape: height and width of the block that the format decodes at once.
        decodes_all_bands: whether reading a block of one band decodes all bands.
        bounds: xmin, ymin, xmax, ymax in the CRS.
    """

    name: str
    crs: CRS | None
    transform: Affine
    height: int
    width: int
    descriptions: tuple[str | None, ...]
    nodata_values: tuple[float | None, ...]
    alpha_index: int | None
    block_shape: tuple[int, int]
    decodes_all_bands: bool

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The outer bounds in the CRS."""

    def read(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
    ) -> Pixels:
        """Return stored pixels [C, h, w] of `window`, or of the whole raster.

        With `out_shape` the whole raster is thinned out to that shape.
        """

    def read_valid(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
        *,
        alpha_is_data: bool = False,
    ) -> Valid:
        """Return where no mask of the file hides a pixel, bool [C, h, w].

        `nodata_values` are not looked at.

        Args:
            indexes: as for `read`.
            window: as for `read`.
            out_shape: as for `read`.
            alpha_is_data: the catalog lists the alpha band as a band of data, so it
                hides nothing.
        """

    def window_transform(self, window: Window) -> Affine:
        """Return the affine transform of a window."""

    def tags(self) -> dict[str, str]:
        """Return the texts that the file carries, by name."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The place, size and bands that a file declares.

    Attributes:
        crs: see Raster.
        transform: see Raster.
        height: see Raster.
        width: see Raster.
        descriptions: see Raster.
        nodata: stored value that means no data in every band, if there is one.
        block_shape: height and width of the block that the format decodes at once.
    """

    crs: CRS | None
    transform: Affine
    height: int
    width: int
    descriptions: tuple[str | None, ...]
    nodata: float | None
    block_shape: tuple[int, int]


class Georeferenced:
    """A raster's place: what follows from its transform and its size.

    Attributes:
        transform: see Raster.
        height: see Raster.
        width: see Raster.
    """

    transform: Affine
    height: int
    width: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The outer bounds in the CRS: xmin, ymin, xmax, ymax."""
        # The first and the last corner are not the outer ones when the raster is
        # rotated, or when its first row is the southernmost.
        corners = [
            self.transform * (col, row) for col in (0, self.width) for row in (0, self.height)
        ]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def window_transform(self, window: Window) -> Affine:
        """Return the affine transform of a window."""
        return self.transform * Affine.translation(window.col_off, window.row_off)

    def shape_of(
        self, num_bands: int, window: Window | None, out_shape: tuple[int, int, int] | None
    ) -> tuple[int, int, int]:
        """Return the shape [C, h, w] of what `read` gives for the same arguments."""
        if out_shape is not None:
            return (num_bands, *out_shape[1:])
        if window is None:
            return num_bands, self.height, self.width
        return num_bands, int(window.height), int(window.width)


class GridRaster(Georeferenced, ABC):
    """A Raster made of blocks of pixels; a format only adds how to read a window.

    Attributes:
        name: the path it was opened by, for messages.
        block_shape: height and width of the block that the format decodes at once; a
            thinned-out read holds one block at a time. The other fields of its Header
            are attributes too.
    """

    def __init__(self, name: str, header: Header) -> None:
        self.name = name
        self.crs, self.transform = header.crs, header.transform
        self.height, self.width = header.height, header.width
        self.descriptions = header.descriptions
        self.nodata_values = (header.nodata,) * len(header.descriptions)
        self.alpha_index: int | None = None
        self.block_shape = header.block_shape
        self.decodes_all_bands = False

    def tags(self) -> dict[str, str]:
        """Return no texts: no layout needs the texts of such a file."""
        return {}

    def read(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
    ) -> Pixels:
        """Return stored pixels [C, h, w] of `window`, by default of the whole raster.

        With `out_shape` the whole raster is thinned out by nearest neighbour.
        """
        if out_shape is not None:
            return self._thinned(indexes, *out_shape[1:])
        if window is None:
            return self._read(indexes, 0, 0, self.height, self.width)
        return self._read(
            indexes, int(window.row_off), int(window.col_off), int(window.height), int(window.width)
        )

    def read_valid(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
        *,
        alpha_is_data: bool = False,
    ) -> Valid:
        """Return True everywhere: such a file has no masks."""
        del alpha_is_data
        return np.ones(self.shape_of(len(indexes), window, out_shape), bool)

    @abstractmethod
    def _read(self, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        """Return stored pixels [C, height, width] from pixel (row, col) on.

        The window lies within the raster.
        """

    def _thinned(self, indexes: list[int], height: int, width: int) -> Pixels:
        rows = ((np.arange(height) + 0.5) * self.height / height).astype(int)
        cols = ((np.arange(width) + 0.5) * self.width / width).astype(int)
        block_height, block_width = self.block_shape
        result: Pixels | None = None
        for row in range(0, self.height, block_height):
            in_rows = np.flatnonzero((rows >= row) & (rows < row + block_height))
            for col in range(0, self.width, block_width):
                in_cols = np.flatnonzero((cols >= col) & (cols < col + block_width))
                if not in_rows.size or not in_cols.size:
                    continue
                size = min(block_height, self.height - row), min(block_width, self.width - col)
                block = self._read(indexes, row, col, *size)
                if result is None:
                    result = np.zeros((len(indexes), height, width), block.dtype)
                result[:, in_rows[:, None], in_cols] = block[
                    :, rows[in_rows, None] - row, cols[in_cols] - col
                ]
        return np.zeros((len(indexes), height, width)) if result is None else result
