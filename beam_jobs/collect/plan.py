"""plan: what a fetch will ask for and cost, before anything is spent.

Input: places and config. Output: a `Plan`. A pilot measures what cannot be computed. It
fetches the first places into the job's own folder, so its pairs are not lost.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

from beam_jobs.collect import collecting, job_folder, ledger, ledger_store
from beam_jobs.collect.config import FetchConfig, Tier
from beam_jobs.collect.fetch import example_requests, fetch_units
from beam_jobs.collect.job import CollectJob, OnProgress, StrPath
from beam_jobs.contracts import settings
from beam_jobs.earth_engine.connection import Connection
from beam_jobs.earth_engine.requests import request_bytes
from beam_jobs.errors import DataError
from beam_jobs.places.place import read_places
from beam_jobs.storage import files

EECU_HOURS_A_MONTH: dict[Tier, float | None] = {
    "community": 150.0,
    "contributor": 1_000.0,
    "partner": 100_000.0,
    "commercial": None,
}
"""Compute that the tier of a project may use in a month; commercial projects pay by
use. Source: https://developers.google.com/earth-engine/guides/noncommercial_tiers (from
27 April 2026)."""
PROJECT_REQUESTS_PER_SECOND, PROJECT_CONCURRENCY = 100.0, 40
"""Source: https://developers.google.com/earth-engine/guides/usage."""
REQUESTS_PER_UNIT = 3
"""One listing of both sensors, and the pixels of each."""
ASSUMED_REQUEST_SECONDS = 2.5
"""Used until a pilot measures it: computePixels of 256 px took 2-3 s with 40 at once.
Source: the notebook Earth_Engine_training_patches_computePixels of
google/earthengine-community."""
ASSUMED_DISK_FRACTION = 0.5
"""Used until a pilot measures it: compressed GeoTIFF to raw bytes; 2.1 TB of a million
pairs became about 1 TB."""
ASSUMED_EECU_PER_REQUEST_SECOND = 1.0
"""Used where the server sends no profile: one unit of compute is busy for the whole
request. The guess is high, since part of that time is waiting. A plan that uses it says
so."""
SHARD_BYTES = 128_000_000
"""Size that the builds aim at for a shard."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a fetch will take.

    All figures are of the whole job, including what is fetched already.

    Attributes:
        num_places: places.
        num_units: places x windows.
        num_pairs: units that are expected to give a pair.
        num_requests: listings and pixel requests, with failed ones as far as a pilot
            saw them.
        request_bytes: raw bytes of the larger of the two pixel requests.
        raw_bytes: bytes of all pixels, uncompressed; Earth Engine's limit counts these.
        disk_bytes: bytes of the files.
        num_shards: shards, if each file becomes a whole patch.
        request_seconds: mean time of a request.
        requests_per_second: what rate and concurrency allow.
        wall_hours: duration of the fetch.
        eecu_hours: compute; None = unknown.
        tier_eecu_hours: compute of the tier in a month; None = paid by use.
        num_pilot_units: units that the measured figures come from.
        measured: figure -> how it was found.
        warnings: problems that will not stop the fetch.
    """

    num_places: int
    num_units: int
    num_pairs: int
    num_requests: int
    request_bytes: int
    raw_bytes: int
    disk_bytes: int
    num_shards: int
    request_seconds: float
    requests_per_second: float
    wall_hours: float
    eecu_hours: float | None
    tier_eecu_hours: float | None
    num_pilot_units: int
    measured: dict[str, str]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What a folder's ledger has measured so far.

    Attributes:
        num_units: units done or rejected.
        pair_fraction: share of them that gave a pair.
        requests_per_unit: requests per unit, with failed ones.
        request_seconds: mean time of a request; None = nothing measured.
        disk_bytes_per_pair: None = nothing measured.
        eecu_seconds_per_request: mean of a pixel request; None = the server reported
            none.
        pixel_requests_per_unit: answered pixel requests per unit.
    """

    num_units: int = 0
    pair_fraction: float = 1.0
    requests_per_unit: float = float(REQUESTS_PER_UNIT)
    request_seconds: float | None = None
    disk_bytes_per_pair: float | None = None
    eecu_seconds_per_request: float | None = None
    pixel_requests_per_unit: float = 2.0


def plan(
    config: FetchConfig,
    places: StrPath,
    *,
    folder: StrPath | None = None,
    num_pilot: int = 0,
    connection: Connection | None = None,
    on_progress: OnProgress | None = None,
) -> Plan:
    """Return the plan of a fetch, with measured figures if a pilot is asked for.

    Args:
        config: settings of the fetch.
        places: file of places.
        folder: folder of the fetch, path or URI; its ledger holds the measurements. A
            pilot needs it.
        num_pilot: units to fetch first; 0 = none.
        connection: connection to Earth Engine, for the pilot.
        on_progress: progress of the pilot.

    Raises:
        EarthEngineError: reason too_large; Earth Engine would refuse the requests.
        DataError: the places break a rule, or the pilot's folder belongs to another
            job.
    """
    requests = example_requests(config.collect, places)
    if num_pilot:
        if folder is None or connection is None:
            raise ValueError("a pilot needs the folder of the fetch and a connection")
        with job_folder.hold(folder, settings.canonical_json(config.collect)) as held:
            job = CollectJob(
                config=config,
                connection=connection,
                places=places,
                max_units=num_pilot,
                profiled=True,
            )
            fetch_units(job, held, on_progress=on_progress)
    num_places = num_units = 0
    for place in read_places(places):
        num_places += 1
        num_units += sum(1 for _ in collecting.units([place]))
    sizes = [request_bytes(request) for request in requests.values()]
    pilot = measure(folder) if folder is not None else Pilot()
    return estimate(config, pilot, num_places=num_places, num_units=num_units, sizes=sizes)


def measure(folder: StrPath) -> Pilot:
    """Return what the ledger and the files of a folder measured.

    Without any, nothing is measured and the defaults of `Pilot` hold.

    Raises:
        DataError: none of the requests in the folder was answered.
    """
    with ledger_store.local_copy(f"{os.fspath(folder)}/{ledger.LEDGER_DIR}") as copy:
        state = ledger.read_state(copy.path)
    num_finished = len(state.finished)
    if not num_finished:
        return Pilot()
    num_answered = state.num_answers.total()
    if not num_answered:
        raise DataError(
            f"{folder}: no request of the pilot was answered; see the ledger there", "no_answer"
        )
    disk_bytes = files.num_bytes_below(f"{os.fspath(folder)}/scenes", ".tif")
    num_pixel_answers = state.num_answers["s1"] + state.num_answers["s2"]
    return Pilot(
        num_units=num_finished,
        pair_fraction=state.num_done / num_finished,
        requests_per_unit=(num_answered + state.num_failures.total()) / num_finished,
        # Reading a profile is a request too, but the fetch itself makes none.
        request_seconds=state.request_seconds / state.num_requests,
        disk_bytes_per_pair=disk_bytes / state.num_done if state.num_done else None,
        eecu_seconds_per_request=state.eecu_seconds / state.num_with_eecu
        if state.num_with_eecu
        else None,
        pixel_requests_per_unit=num_pixel_answers / num_finished,
    )


def estimate(
    config: FetchConfig, pilot: Pilot, *, num_places: int, num_units: int, sizes: list[int]
) -> Plan:
    """Return the plan from counts and the measurements of a pilot.

    Requests a second = min(rate, concurrency / seconds of a request) (Little's law).
    Hours = requests / requests a second.

    Args:
        config: settings of the fetch.
        pilot: what was measured.
        num_places: places.
        num_units: places x windows.
        sizes: raw bytes of each pixel request of a unit.
    """
    collect, limits = config.collect, config.quota
    num_pairs = round(num_units * pilot.pair_fraction)
    num_requests = math.ceil(num_units * pilot.requests_per_unit)
    seconds = ASSUMED_REQUEST_SECONDS if pilot.request_seconds is None else pilot.request_seconds
    rate = min(limits.max_requests_per_second, limits.max_concurrency / max(seconds, 1e-6))
    num_pixel_requests = num_units * pilot.pixel_requests_per_unit
    disk_per_pair = (
        ASSUMED_DISK_FRACTION * sum(sizes)
        if pilot.disk_bytes_per_pair is None
        else pilot.disk_bytes_per_pair
    )
    num_bands = len(collect.s1_bands) + len(collect.bands_of_s2)
    shard_bytes = num_pairs * 2 * num_bands * collect.size_px**2 * disk_per_pair / sum(sizes)
    eecu_hours, how_eecu = _eecu_hours(pilot, num_pixel_requests)
    tier_hours = EECU_HOURS_A_MONTH[config.tier]
    how = f"{pilot.num_units} units" if pilot.num_units else "assumed; run --pilot"
    return Plan(
        num_places=num_places,
        num_units=num_units,
        num_pairs=num_pairs,
        num_requests=num_requests,
        request_bytes=max(sizes),
        raw_bytes=round(num_pixel_requests * sum(sizes) / len(sizes)),
        disk_bytes=round(num_pairs * disk_per_pair),
        num_shards=math.ceil(shard_bytes / SHARD_BYTES),
        request_seconds=round(seconds, 3),
        requests_per_second=round(rate, 2),
        wall_hours=round(num_requests / rate / 3600.0, 3),
        eecu_hours=eecu_hours,
        tier_eecu_hours=tier_hours,
        num_pilot_units=pilot.num_units,
        measured={
            "pairs": how,
            "requests": how,
            "bytes on disk": how,
            "seconds a request": how,
            "EECU": how_eecu,
        },
        warnings=_warnings(config, eecu_hours, tier_hours),
    )


def _eecu_hours(pilot: Pilot, num_pixel_requests: float) -> tuple[float | None, str]:
    if pilot.eecu_seconds_per_request is not None:
        hours = num_pixel_requests * pilot.eecu_seconds_per_request / 3600.0
        return hours, f"Earth Engine's profiles of the pixel requests of {pilot.num_units} units"
    if pilot.request_seconds is not None:
        hours = (
            num_pixel_requests * pilot.request_seconds * ASSUMED_EECU_PER_REQUEST_SECOND / 3600.0
        )
        assumed = f"{ASSUMED_EECU_PER_REQUEST_SECOND:g} EECU-second for each second of a request"
        return hours, f"assumed, {assumed}; the server sent no profile"
    return None, "unknown; run --pilot"


def _warnings(
    config: FetchConfig, eecu_hours: float | None, tier_hours: float | None
) -> tuple[str, ...]:
    found = []
    if eecu_hours is not None and tier_hours is not None and eecu_hours > tier_hours:
        found.append(
            f"{eecu_hours:.0f} EECU-hours are {eecu_hours / tier_hours:.1f} months "
            f"of tier {config.tier} ({tier_hours:g} a month)"
        )
    if config.quota.max_concurrency > PROJECT_CONCURRENCY:
        found.append(
            f"max_concurrency is {config.quota.max_concurrency}; "
            f"a project gets {PROJECT_CONCURRENCY} by default"
        )
    if config.quota.max_requests_per_second > PROJECT_REQUESTS_PER_SECOND:
        rate = config.quota.max_requests_per_second
        found.append(
            f"max_requests_per_second is {rate:g}; a project gets {PROJECT_REQUESTS_PER_SECOND:g}"
        )
    return tuple(found)
