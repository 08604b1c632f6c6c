"""Pixels, request by request: computePixels, checked to be whole before anyone sees them.

Input: `PixelRequest`. Output: the bytes of a GeoTIFF. Called inside Beam by `fetch`
after `connection.connect`.
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
    """Pixels and what they cost.

    Attributes:
        data: GeoTIFF.
        eecu_seconds: compute that Earth Engine's profile counts for the request; NaN
            when the server sent no profile.
    """

    data: bytes
    eecu_seconds: float


def fetch_pixels(request: PixelRequest) -> bytes:
    """A whole GeoTIFF of the request: size, number of bands and dtype are as asked, and every block reads.

    Raises:
        EarthEngineError: see `errors.Reason`; too_large before anything is sent.
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
    """The same with what it cost, for the pilot of a plan; a second request reads the profile.

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
    """WorldCover 2021 of the whole Earth on a coarse grid, uint8 GeoTIFF in EPSG:4326, 0 = masked (open sea).

    Each pixel is one class, as Earth Engine's pyramid keeps it: enough to stratify a
    sample, not to measure areas.

    Args:
        pixel_size_degrees: as 0.25; must divide 180.

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
    """Raises EarthEngineError (truncated) when the bytes are not a readable GeoTIFF of that size."""
    expected = (num_bands, grid.height, grid.width, {dtype})
    try:
        with MemoryFile(data) as file, file.open(driver="GTiff") as dataset:
            found = (dataset.count, dataset.height, dataset.width, set(dataset.dtypes))
            # Opening reads the header only; a file cut short fails at its last blocks.
            dataset.read()
    except (RasterioError, ValueError) as error:
        raise EarthEngineError(
            f"{what}: the answer of {len(data)} bytes is not a whole GeoTIFF ({' '.join(str(error).split())})",
            "truncated",
        ) from error
    if found != expected:
        raise EarthEngineError(
            f"{what}: the answer must have (bands, height, width, dtypes) {expected}, got {found}",
            "truncated",
        )


def _eecu_seconds(profile: str) -> float:
    """Sum of the first column of a profile's text: EECU seconds, then memory, count and description a line."""
    costs = [float(match) for match in re.findall(r"^\s*(\d+\.\d+)\s", profile, re.MULTILINE)]
    return sum(costs) if costs else math.nan
