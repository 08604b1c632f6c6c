"""Which scenes there are of a place and a time: both sensors in one request.

Input: bounds and dates. Output: `Acquisition`s. Called by the planning of a fetch after `connection.connect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from beam_jobs.config import EarthEngineConfig
from beam_jobs.contracts.bands import Sensor
from beam_jobs.grids import Bounds


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """One scene of a place.

    Attributes:
        image_id: full asset id, as COPERNICUS/S2_SR_HARMONIZED/20230105T103421_20230105T103417_T31UFS.
        sensor: s1 or s2.
        acquired_at: seconds since 1970, UTC.
        orbit_state: ascending, descending or unknown.
        relative_orbit: track number; -1 unknown.
        cloud_fraction: 0-1 of the whole scene; NaN for radar and where unknown.
    """

    image_id: str
    sensor: Sensor
    acquired_at: int
    orbit_state: str
    relative_orbit: int
    cloud_fraction: float


def list_acquisitions(bounds: Bounds, start: datetime, end: datetime, config: EarthEngineConfig) -> list[Acquisition]:
    """All scenes whose footprint holds `bounds`, by sensor and time; Sentinel-1 only in IW mode with VV and VH.

    Args:
        bounds: xmin, ymin, xmax, ymax in degrees of longitude and latitude; xmax may exceed 180 across the antimeridian.
        start: UTC, included.
        end: UTC, excluded.
        config: collections and the cloudiest scene wanted.

    Raises:
        EarthEngineError: see `errors.Reason`.
    """
    raise NotImplementedError
