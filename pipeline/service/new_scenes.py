"""New scenes: ask Earth Engine for what is newer than the last span of a run.

RunConfig, a connection and the current day -> a larger catalog in the folder of the
run, which `build_data` reads beside the other catalogs.
"""

from __future__ import annotations

from datetime import date

from beam_jobs.collect import watching
from beam_jobs.collect.fetch import FetchSummary
from beam_jobs.collect.job import OnProgress
from beam_jobs.contracts import layout
from beam_jobs.data_card import card
from beam_jobs.earth_engine.connection import Connection
from beam_jobs.errors import DataError, NothingNewError
from pipeline.config import RunConfig
from pipeline.data_build import data_sets


def fetch_new(
    config: RunConfig, connection: Connection, today: date, on_progress: OnProgress | None = None
) -> FetchSummary | None:
    """Fetch the pairs that are newer than the newest image of the last span.

    Args:
        config: a run with `earth_engine`.
        connection: connection to Earth Engine.
        today: the current day, UTC.
        on_progress: called with (units done or rejected, units in all).

    Returns:
        What the folder of the fetch holds now; None: no time window has ended since,
        or no pair was ever found.

    Raises:
        NothingNewError: there is no pair at all, and the run has no other source of
            scenes.
        DataError: see `fetch`.
    """
    watch = config.earth_engine
    if watch is None:
        raise ValueError("the config names no places for Earth Engine")
    newest = newest_day(config)
    windows = watching.windows_between(watch, newest, today)
    why = (
        f"the first {watch.window_days} days from {watch.start} ended less than "
        f"{watch.delay_days} days ago, or are not over"
    )
    if windows:
        try:
            return watching.fetch_newer(watch, connection, windows, config.fetched_dir, on_progress)
        except DataError as error:
            if error.reason != "empty_catalog":
                raise
            why = f"no pair was found in {len(windows)} time windows since {windows[0].start}"
    if newest is None and not config.catalogs:
        raise NothingNewError(
            f"earth_engine: {why}: there is nothing to train on yet; what was asked for is in "
            f"{config.fetched_dir}",
            "nothing_new",
        )
    return None


def newest_day(config: RunConfig) -> date | None:
    """Return the day of the newest image in the last span of any data set, UTC.

    None: no data set has a span, or no span tells, because an early release built it.

    Raises:
        DamagedFileError: a data card is not what was written.
    """
    days = []
    for data in data_sets(config):
        versions = layout.list_versions(data.root)
        if versions:
            days.append(card.newest_day(layout.version_dir(data.root, *versions[-1])))
    return max((day for day in days if day is not None), default=None)
