"""fetch: places -> GeoTIFFs of Sentinel-1/2 pairs with a catalog, patch by patch from Earth Engine, inside Beam.

Input: `places.geojson`. Output: `scenes/…`, `items.ndjson`, `rejected.ndjson` and the
ledger in one folder, on a disk or an object store. A job that was killed or stopped
goes on where it was: run it again. Called by `python -m beam_jobs fetch` and, for its
pilot, by `plan`.

The job is cut into as many slices as there are workers. A slice is one Beam element,
because its threads share a part of the quota that nobody else may use (`quota.py`);
what it did is in the ledger, so a runner may start it again at any time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import apache_beam as beam
import pystac
from apache_beam.io.filesystems import FileSystems

from beam_jobs import runner
from beam_jobs.collect import collecting, job_folder, ledger, ledger_store, patch_files, quota
from beam_jobs.collect.collecting import Pair
from beam_jobs.collect.config import CollectConfig, FetchConfig
from beam_jobs.collect.fetch_slice import SliceTask, run_slice
from beam_jobs.collect.job_folder import JobFolder
from beam_jobs.collect.ledger_store import LocalCopy
from beam_jobs.contracts import settings
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.earth_engine.connection import Connection, connect
from beam_jobs.earth_engine.listing import Acquisition
from beam_jobs.earth_engine.requests import PixelRequest, check_limits
from beam_jobs.errors import DataError
from beam_jobs.places.place import read_places
from beam_jobs.repeating import repeating

OnProgress = Callable[[int, int], None]
StrPath = str | os.PathLike[str]
CATALOG_NAME = "items.ndjson"


@dataclass(frozen=True, kw_only=True)
class FetchSummary:
    """What the folder holds now, and what this run did.

    Attributes:
        num_units: places x windows that were wanted.
        state: what the ledger's entries come to.
        num_requests: of this run.
        seconds: of this run.
        catalog: its path or URI.
    """

    num_units: int
    state: ledger.LedgerState
    num_requests: int
    seconds: float
    catalog: str


def fetch(
    config: FetchConfig,
    connection: Connection,
    places: StrPath,
    output_dir: StrPath,
    retry_rejected: bool = False,
    on_progress: OnProgress | None = None,
    beam_options: Sequence[str] = (),
) -> FetchSummary:
    """Fetches every pair that is still missing, then writes the catalog of all.

    Args:
        config: what, and how fast.
        connection: to Earth Engine.
        places: file of places.
        output_dir: folder of the job, path or URI; made if needed.
        retry_rejected: ask again for what was rejected.
        on_progress: called with (units done or rejected, units in all).
        beam_options: as on a Beam command line; see `runner.pipeline_options`.

    Raises:
        DataError: the places break a rule, the folder is another job's, Earth Engine
            stopped answering (reason quota_exhausted, no_credentials or stopped), or no
            pair came.
    """
    # Before the first look at a store: endpoint and keys may be among the options.
    FileSystems.set_options(runner.pipeline_options(quota.num_slices(config.quota), beam_options))
    with job_folder.hold(output_dir, settings.canonical_json(config.collect)) as folder:
        summary = fetch_units(
            config,
            connection,
            places,
            folder,
            retry_rejected,
            on_progress,
            beam_options=beam_options,
        )
        # Brings TensorFlow with it, for which nothing before should wait.
        from beam_jobs.catalogs.catalog import write_items

        write_items(_items(folder, config.collect), summary.catalog)
        return summary


def fetch_units(
    config: FetchConfig,
    connection: Connection,
    places: StrPath,
    folder: JobFolder,
    retry_rejected: bool = False,
    on_progress: OnProgress | None = None,
    max_units: int | None = None,
    profiled: bool = False,
    beam_options: Sequence[str] = (),
) -> FetchSummary:
    """As `fetch`, into a folder that is held already and without the catalog.

    Args:
        config: what, and how fast.
        connection: to Earth Engine.
        places: file of places.
        folder: of the job.
        retry_rejected: ask again for what was rejected.
        on_progress: called with (units done or rejected, units in all).
        max_units: only the first so many units; None = all.
        profiled: also ask what each pixel request cost.
        beam_options: as on a Beam command line.
    """
    num_units = sum(1 for _ in islice(collecting.units(read_places(places)), max_units))
    example_requests(config.collect, places)
    # Here too, so that missing credentials are said before workers start.
    connect(connection)
    tasks = [
        SliceTask(
            folder=folder,
            places=os.fspath(places) if is_remote(places) else os.path.abspath(places),
            config=config,
            connection=connection,
            number=number,
            retry_rejected=retry_rejected,
            max_units=max_units,
            profiled=profiled,
        )
        for number in range(quota.num_slices(config.quota))
    ]
    begun = time.monotonic()
    with ledger_store.local_copy(folder.ledger_dir) as copy:
        before = ledger.read_state(copy.path)
        with _reported(copy, num_units, on_progress):
            _run(tasks, beam_options)
        state = ledger.read_state(copy.refresh())
        ledger.write_rejected(copy.path, f"{folder.path}/{ledger.REJECTED_NAME}")
    wanted = islice(collecting.units(read_places(places)), max_units)
    num_left = sum(unit.unit_id not in state.finished for unit in wanted)
    _check_ended(folder, state, num_left)
    return FetchSummary(
        num_units=num_units,
        state=state,
        num_requests=state.num_requests - before.num_requests,
        seconds=time.monotonic() - begun,
        catalog=f"{folder.path}/{CATALOG_NAME}",
    )


def _check_ended(folder: JobFolder, state: ledger.LedgerState, num_left: int) -> None:
    """Refuses to call a job done that was stopped, or that a runner only took in.

    Raises:
        DataError: as of `fetch`.
    """
    stopped = folder.why_stopped()
    if stopped is None and num_left:
        stopped = DataError(
            f"the Beam runner ended with {num_left} places and windows still open", "stopped"
        )
    if stopped is not None:
        raise DataError(
            f"{stopped}; {state.num_done} pairs are there, run the same command again to go on",
            stopped.reason,
        )


def example_requests(config: CollectConfig, places: StrPath) -> dict[str, PixelRequest]:
    """The pixel requests of the first unit; those of all others are as large.

    Raises:
        EarthEngineError: reason too_large; Earth Engine would refuse them.
    """
    unit = next(collecting.units(read_places(places)))
    unknown = Acquisition(
        image_id="each pixel request",
        sensor="s1",
        acquired_at=0,
        orbit_state="unknown",
        relative_orbit=-1,
        cloud_fraction=math.nan,
    )
    requests = collecting.pixel_requests(
        Pair(s1=unknown, s2=unknown), collecting.grid_of(unit, config), config
    )
    for request in requests.values():
        check_limits(request)
    return requests


def _run(tasks: list[SliceTask], beam_options: Sequence[str]) -> None:
    options = runner.pipeline_options(len(tasks), beam_options)
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Slices" >> beam.Create(tasks)
            | "OneWorkerEach" >> beam.Reshuffle()
            | "FetchSlice" >> beam.Map(run_slice)
        )


def _items(folder: JobFolder, config: CollectConfig) -> Iterator[pystac.Item]:
    """Items of all pairs, by unit, whatever the order in which they came."""
    with ledger_store.local_copy(folder.ledger_dir) as copy:
        for entry in ledger.done_entries(copy.path):
            unit, pair = collecting.unit_of(entry), Pair.from_dict(entry)
            yield from patch_files.stac_items(unit, pair, config, entry.get("cloud_fraction"))


@contextmanager
def _reported(copy: LocalCopy, num_units: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Calls `on_progress` now and then from what workers, which may be other processes, add to the ledger."""
    if on_progress is None:
        yield
        return
    tail = ledger.LedgerTail(copy.path)

    def look() -> None:
        copy.refresh()
        on_progress(min(tail.num_finished(), num_units), num_units)

    try:
        with repeating(look, copy.seconds_between_looks):
            yield
    finally:
        look()
