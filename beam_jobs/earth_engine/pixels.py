"""Pixels of a request from computePixels, checked to be complete.

Input: `PixelRequest`, after `connection.connect`. Output: the bytes of a GeoTIFF.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from beam_jobs.earth_engine.client import ee
from beam_jobs.earth_engine.connection import translated
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.images import overview_image, request_image
from beam_jobs.earth_engine.requests import PixelRequest, check_limits, pixel_grid
from beam_jobs.scenes.grids import LONLAT, Grid


@dataclass(frozen=True, kw_only=True)
class ProfiledPixels:
    """Pixels and their cost.

    Attributes:
        data: bytes of a GeoTIFF.
        eecu_seconds: compute that Earth Engine's profile counts for the request; NaN
            when the server sent no profile.
    """

    data: bytes
    eecu_seconds: float


def fetch_pixels(request: PixelRequest) -> bytes:
    """Return a complete GeoTIFF of the request.

    Size, number of bands and dtype are as asked, and every block can be read.

    Raises:
        EarthEngineError: see `RequestReason`; too_large before anything is sent.
    """
    check_limits(request)
    with translated(request.image_id):
        data = _compute(request_image(request), request.grid)
    _check_whole(
        data,
        request.image_id,
        grid=request.grid,
        num_bands=len(request.answer_bands),
        dtype=request.dtype,
    )
    return data


def fetch_profiled(request: PixelRequest) -> ProfiledPixels:
    """Return the pixels of a request and their cost, for the pilot of a plan.

    A second request reads the profile.

    Raises:
        EarthEngineError: as `fetch_pixels`.
    """
    profile_ids: list[str] = []
    with ee.data.profiling(profile_ids.append):
        data = fetch_pixels(request)
    if not profile_ids:
        return ProfiledPixels(data=data, eecu_seconds=math.nan)
    with translated(f"profile of {request.image_id}"):
        profile = ee.data.computeValue(ee.ApiFunction.call_("Profile.getProfiles", ids=profile_ids))
    return ProfiledPixels(data=data, eecu_seconds=_eecu_seconds(str(profile)))


def fetch_overview(pixel_size_degrees: float) -> bytes:
    """Return WorldCover 2021 of the whole Earth on a coarse grid.

    The answer is a uint8 GeoTIFF in EPSG:4326, 0 = masked (open sea). Each pixel is one
    class, as Earth Engine's pyramid keeps it: enough to stratify a sample, not to
    measure areas.

    Args:
        pixel_size_degrees: for example 0.25; must divide 180.

    Raises:
        EarthEngineError: as `fetch_pixels`.
        ValueError: the pixel size does not divide 180 degrees.
    """
    height = round(180.0 / pixel_size_degrees) if pixel_size_degrees > 0 else 0
    if not height or not math.isclose(height * pixel_size_degrees, 180.0):
        raise ValueError(f"pixel_size_degrees must divide 180, got {pixel_size_degrees}")
    transform = (pixel_size_degrees, 0.0, -180.0, 0.0, -pixel_size_degrees, 90.0)
    grid = Grid(crs=LONLAT, transform=transform, height=height, width=2 * height)
    with translated("overview of land cover"):
        data = _compute(overview_image(), grid)
    _check_whole(data, "overview of land cover", grid=grid, num_bands=1, dtype="uint8")
    return data


def _compute(image: ee.Image, grid: Grid) -> bytes:
    return ee.data.computePixels(
        {"expression": image, "fileFormat": "GEO_TIFF", "grid": pixel_grid(grid)}
    )


def _check_whole(data: bytes, what: str, *, grid: Grid, num_bands: int, dtype: str) -> None:
    """Check that the bytes are a readable GeoTIFF of the expected size and dtype.

    Raises:
        EarthEngineError: reason truncated; they are not.
    """
    expected = (num_bands, grid.height, grid.width, {dtype})
    try:
        with MemoryFile(data) as file, file.open(driver="GTiff") as dataset:
            found = (dataset.count, dataset.height, dataset.width, set(dataset.dtypes))
            # Opening reads the header only; a file that is cut short fails at its last
            # blocks.
            dataset.read()
    except (RasterioError, ValueError) as error:
        raise EarthEngineError(
            f"{what}: the answer of {len(data)} bytes is not a complete GeoTIFF "
            f"({' '.join(str(error).split())})",
            "truncated",
        ) from error
    if found != expected:
        raise EarthEngineError(
            f"{what}: the answer must have (bands, height, width, dtypes) {expected}, got {found}",
            "truncated",
        )


def _eecu_seconds(profile: str) -> float:
    """Return the sum of the first column of a profile's text, in EECU seconds.

    Memory, count and description follow on each line.
    """
    costs = [float(match) for match in re.findall(r"^\s*(\d+\.\d+)\s", profile, re.MULTILINE)]
    return sum(costs) if costs else math.nan
