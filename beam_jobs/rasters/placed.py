"""Placed rasters: files that lost their place on Earth, read as if they lay where their path says.

Input: an open raster and a member `at=<crs>,<x>,<y>,<pixel>`. Output: a Raster there.
Called by `opening.py`; layouts write the member with `member_at`, for data sets whose
splits do not need the place.
"""

from __future__ import annotations

from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from beam_jobs.errors import DataError
from beam_jobs.rasters.raster import GridRaster, Header, Pixels, Raster

PREFIX = "at="
"""Begins a member that is a place."""


def member_at(crs: str, x: float, y: float, pixel_size_m: float) -> str:
    """The member that puts the upper left corner of a raster at (x, y) of `crs`, rows to the south."""
    return f"{PREFIX}{crs},{x:g},{y:g},{pixel_size_m:g}"


def has_place(raster: Raster) -> bool:
    """Whether the file says where it lies: it has a CRS, and pixels that are not just numbered from 0."""
    return raster.crs is not None and not raster.transform.almost_equals(Affine.identity())


class PlacedRaster(GridRaster):
    """The pixels of a raster at another place."""

    def __init__(self, raster: Raster, name: str, member: str) -> None:
        """Reads the place.

        Args:
            raster: open, and open as long as this one is read.
            name: what messages call it.
            member: as `member_at` writes it.

        Raises:
            DataError: the member is no place.
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
                nodata=raster.nodata,
                block_shape=(raster.height, raster.width),
            )
        except (CRSError, ValueError) as error:
            raise DataError(
                f"{name}: a place must be {PREFIX}crs,x,y,pixel, got {member!r}", "bad_item"
            ) from error
        super().__init__(name, header)
        self._raster = raster

    def _read(self, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        return self._raster.read(indexes, window=Window(col, row, width, height))
