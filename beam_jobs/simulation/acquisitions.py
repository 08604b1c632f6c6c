"""Draw when each place is seen: pairs of Sentinel-1 and Sentinel-2 passes.

Input: seed, place and number of dates. Output: pairs of `Acquisition`s in 2023 and
2024, each with the share of dry ground that is flooded at that moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

import numpy as np

from beam_jobs.config import ProcessingLevel
from beam_jobs.contracts.bands import Sensor
from beam_jobs.simulation.fields import stream
from beam_jobs.simulation.places import Place

OrbitState = Literal["ascending", "descending"]

FIRST_DAY = datetime(2023, 1, 3, tzinfo=timezone.utc)
NUM_DAYS = 724
MIN_DAYS_BETWEEN_DATES = 15
"""Days between the optical passes of a place. Radar is up to 32 h off, so scenes of
different dates are at least 12 days apart."""
FLOOD_PROBABILITY = 0.5
_RECESSION_HOURS = 240.0
# Hours from the optical pass (10:30 local solar time) to radar passes at 06:00
# (descending) and 18:00 (ascending). Source: Sentinel-1 dawn-dusk orbit,
# https://sentiwiki.copernicus.eu/web/s1-mission; Sentinel-2 10:30 descending node.
_RADAR_SLOTS: tuple[tuple[float, OrbitState], ...] = (
    (-28.5, "descending"),
    (-16.5, "ascending"),
    (-4.5, "descending"),
    (7.5, "ascending"),
    (19.5, "descending"),
    (31.5, "ascending"),
)


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """One scene: which satellite saw the place, when, and how much was flooded.

    Attributes:
        sensor: s1 or s2.
        scene_id: name made of platform, mode, time and place.
        place: the place that is seen.
        date_index: number of the date at that place; the two scenes of a pair share it.
        acquired_at: time in UTC.
        platform: satellite, for example sentinel-1a.
        orbit_state: ascending or descending.
        relative_orbit: track number.
        flooded_fraction: 0-1, share of normally dry ground that is under water.
    """

    sensor: Sensor
    scene_id: str
    place: Place
    date_index: int
    acquired_at: datetime
    platform: str
    orbit_state: OrbitState
    relative_orbit: int
    flooded_fraction: float

    @property
    def day_of_year(self) -> int:
        """Day of the year, 1-366."""
        return self.acquired_at.timetuple().tm_yday


def draw_pairs(
    seed: int, place: Place, num_dates: int, s2_processing_level: ProcessingLevel
) -> list[tuple[Acquisition, Acquisition]]:
    """Return the Sentinel-1/2 acquisitions of each date of a place, in time order.

    About half of the dates are flooded. With two dates or more, at least one is flooded
    and at least one is not. The flood recedes between the two passes of a pair, so each
    scene's label shows the water of its own hour.

    Args:
        seed: the run's seed.
        place: the place that is seen.
        num_dates: number of pairs.
        s2_processing_level: L1C or L2A, for the scene id.

    Raises:
        ValueError: more dates than fit into the two years.
    """
    slack = NUM_DAYS - MIN_DAYS_BETWEEN_DATES * num_dates
    if slack < 0:
        raise ValueError(
            f"num_dates must be at most {NUM_DAYS // MIN_DAYS_BETWEEN_DATES}, got {num_dates}"
        )
    rng = stream(seed, "dates", place.index)
    days = np.sort(rng.integers(0, slack + 1, num_dates)) + MIN_DAYS_BETWEEN_DATES * np.arange(
        num_dates
    )
    flooded = rng.random(num_dates) < FLOOD_PROBABILITY
    first = int(rng.integers(num_dates))
    flooded[first] = True
    if num_dates > 1:
        flooded[(first + 1) % num_dates] = False
    relative_orbits = {
        "ascending": int(rng.integers(1, 176)),
        "descending": int(rng.integers(1, 176)),
    }
    s2_orbit = int(rng.integers(1, 144))
    pairs = []
    for date_index, day in enumerate(days):
        optical_at = _local_time(place, int(day), 10.5, rng)
        slot_hours, orbit_state = _RADAR_SLOTS[int(rng.integers(len(_RADAR_SLOTS)))]
        radar_at = optical_at + timedelta(hours=slot_hours, minutes=int(rng.integers(-25, 26)))
        peak = float(rng.uniform(0.06, 0.28)) if flooded[date_index] else 0.0
        at_s1, at_s2 = recede(peak, (optical_at - radar_at).total_seconds() / 3600)
        s2_letter = "AB"[int(rng.integers(2))]
        s1 = Acquisition(
            sensor="s1",
            scene_id=f"S1A_IW_{radar_at:%Y%m%dT%H%M%S}_{place.place_id}",
            place=place,
            date_index=date_index,
            acquired_at=radar_at,
            platform="sentinel-1a",
            orbit_state=orbit_state,
            relative_orbit=relative_orbits[orbit_state],
            flooded_fraction=at_s1,
        )
        s2 = Acquisition(
            sensor="s2",
            scene_id=f"S2{s2_letter}_MSI{s2_processing_level}_{optical_at:%Y%m%dT%H%M%S}_{place.place_id}",
            place=place,
            date_index=date_index,
            acquired_at=optical_at,
            platform=f"sentinel-2{s2_letter.lower()}",
            orbit_state="descending",
            relative_orbit=s2_orbit,
            flooded_fraction=at_s2,
        )
        pairs.append((s1, s2))
    return pairs


def recede(peak_fraction: float, time_gap_hours: float) -> tuple[float, float]:
    """Return the flooded fractions (0-1) at the Sentinel-1 and the Sentinel-2 pass.

    The earlier pass sees the peak of the flood.

    Args:
        peak_fraction: 0-1.
        time_gap_hours: time of Sentinel-2 minus time of Sentinel-1.
    """
    later = peak_fraction * math.exp(-abs(time_gap_hours) / _RECESSION_HOURS)
    return (peak_fraction, later) if time_gap_hours >= 0 else (later, peak_fraction)


def _local_time(place: Place, day: int, local_hour: float, rng: np.random.Generator) -> datetime:
    """Return the UTC time of a local solar hour, varied by up to 15 minutes.

    Args:
        place: its longitude gives the local time.
        day: days since FIRST_DAY.
        local_hour: local solar time in hours.
        rng: stream of the dates of this place.
    """
    lon, _ = place.centre()
    utc_hours = local_hour - lon / 15.0
    return FIRST_DAY + timedelta(
        days=day, seconds=round(utc_hours * 3600) + int(rng.integers(-900, 901))
    )
