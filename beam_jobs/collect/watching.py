"""Watching: fetch the pairs of places that are newer than those at hand.

Settings, a folder and two days -> the catalog of all pairs that were fetched so far.
Time after the first day is cut into windows of equal length. Only windows that are over
are asked for, so no pair is chosen before all its candidates are there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

from beam_jobs.collect import fetch as fetching
from beam_jobs.collect.config import FetchConfig, WatchConfig
from beam_jobs.collect.job import CollectJob, OnProgress
from beam_jobs.earth_engine.connection import Connection
from beam_jobs.places.place import Window, read_places, write_places

PLACES_NAME = "places.geojson"


def windows_between(config: WatchConfig, newest: date | None, today: date) -> tuple[Window, ...]:
    """Return the windows that begin after the newest image and are over.

    Windows of one config never overlap, whenever they are asked for.

    Args:
        config: first day, length of a window, and how long images may be late.
        newest: day of the newest image at hand; None = there is none.
        today: the current day, UTC.
    """
    length = timedelta(days=config.window_days)
    last_end = today - timedelta(days=config.delay_days)
    first, found = date.fromisoformat(str(config.start)), []
    while first + length <= last_end:
        if newest is None or first > newest:
            found.append(Window(start=first.isoformat(), end=(first + length).isoformat()))
        first += length
    return tuple(found)


def fetch_newer(
    config: WatchConfig,
    connection: Connection,
    windows: tuple[Window, ...],
    output_dir: str | os.PathLike[str],
    on_progress: OnProgress | None = None,
) -> fetching.FetchSummary:
    """Fetch a pair of each place and window, unless an earlier fetch did.

    Args:
        config: places, and what is collected at each.
        connection: connection to Earth Engine.
        windows: of every place, in place of its own; at least one.
        output_dir: local folder of the fetch, the same each time.
        on_progress: called with (units done or rejected, units in all).

    Raises:
        DataError: see `fetch`.
    """
    places = Path(output_dir) / PLACES_NAME
    write_places((replace(one, windows=windows) for one in read_places(config.places)), places, {})
    job = CollectJob(
        config=FetchConfig(collect=config.collect, quota=config.quota),
        connection=connection,
        places=places,
    )
    return fetching.fetch(job, output_dir, on_progress=on_progress)
