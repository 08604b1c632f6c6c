"""Pixels, request by request: computePixels, checked to be whole before anyone sees them.

Input: `PixelRequest`. Output: the bytes of a GeoTIFF. Called inside Beam by `fetch` after `connection.connect`.
"""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.earth_engine.requests import PixelRequest


@dataclass(frozen=True, kw_only=True)
class ProfiledPixels:
    """Pixels and what they cost.

    Attributes:
        data: GeoTIFF.
        eecu_seconds: compute that Earth Engine's profile counts for the request; NaN when the server sent no profile.
    """

    data: bytes
    eecu_seconds: float


def fetch_pixels(request: PixelRequest) -> bytes:
    """A whole GeoTIFF of the request: size, bands, dtype and grid are as asked, and every block reads.

    Raises:
        EarthEngineError: see `errors.Reason`; too_large before anything is sent.
    """
    raise NotImplementedError


def fetch_profiled(request: PixelRequest) -> ProfiledPixels:
    """The same with what it cost, for the pilot of a plan; a second request reads the profile.

    Raises:
        EarthEngineError: as `fetch_pixels`.
    """
    raise NotImplementedError


def fetch_overview(pixel_size_degrees: float) -> bytes:
    """WorldCover 2021 of the whole Earth on a coarse grid, uint8 GeoTIFF in EPSG:4326, 0 = masked (open sea).

    Each pixel is the class at its centre: enough to stratify a sample of places, not to measure areas.

    Args:
        pixel_size_degrees: as 0.25; must divide 180.

    Raises:
        EarthEngineError: as `fetch_pixels`.
    """
    raise NotImplementedError
