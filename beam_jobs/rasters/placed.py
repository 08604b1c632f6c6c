"""Placed rasters: files that do not say where they lie, put at a nominal place.

Input: an open raster and a member `at=<crs>,<x>,<y>,<pixel>`. Output: a Raster there.
For data sets whose splits do not depend on the place.
"""

from __future__ import annotations

from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from beam_jobs.errors import DataError
from beam_jobs.rasters.raster import GridRaster, Header, Pixels, Raster, Valid

PREFIX = "at="
"""Beginning of a member that is a place."""


def member_at(crs: str, x: float, y: float, pixel_size_m: float) -> str:
    """Return the member that puts a raster's upper left corner at (x, y) of `crs`.

    Rows run southwards.
    """
    return f"{PREFIX}{crs},{x:g},{y:g},{pixel_size_m:g}"


def has_place(raster: Raster) -> bool:
    """Return whether the file says where it lies.

    It has a CRS, and its transform is not the identity, which only numbers the pixels.
    """
    return raster.crs is not None and not raster.transform.almost_equals(Affine.identity())


class PlacedRaster(GridRaster):
    """The pixels of a raster at another place."""

    def __init__(self, raster: Raster, name: str, member: str) -> None:
        """Put `raster` at the place of `member`.

        Args:
            raster: open; it must stay open while this raster is read.
            name: name of the raster in messages.
            member: as `member_at` writes it.

        Raises:
            DataError: the member is not a place.
        """
        try:
            crs, x, y, pixel_size_m = member.removeprefix(PREFIX).split(",")
            size_m = float(pixel_size_m)
            header = Header(
                crs=CRS.from_string(crs),
                transform=Affine(size_m, 0, float(x), 0, -size_m, float(y)),
                height=raster.height,
                width=raster.width,
                descriptions=raster.descriptions,
                nodata=None,
                block_shape=(raster.height, raster.width),
            )
        except (CRSError, ValueError) as error:
            raise DataError(
                f"{name}: a place must be {PREFIX}crs,x,y,pixel, got {member!r}", "bad_item"
            ) from error
        super().__init__(name, header)
        self.nodata_values, self.alpha_index = raster.nodata_values, raster.alpha_index
        self._raster = raster

    def read_valid(
        self,
        indexes: list[int],
        window: Window | None = None,
        out_shape: tuple[int, int, int] | None = None,
        *,
        alpha_is_data: bool = False,
    ) -> Valid:
        """Return where no mask of the wrapped raster hides a pixel."""
        return self._raster.read_valid(indexes, window, out_shape, alpha_is_data=alpha_is_data)

    def _read(self, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        return self._raster.read(indexes, window=Window(col, row, width, height))
