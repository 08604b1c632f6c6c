"""fetch: GeoTIFFs of pairs with a catalog, patch by patch, inside Beam.

Input: `places.geojson`. Output: `scenes/…`, `items.ndjson`, `rejected.ndjson` and the
ledger in one folder, on a disk or an object store. If a job was killed or stopped, run
it again: it continues where it was.

The job is cut into as many slices as there are workers. A slice is one Beam element,
because its threads share a part of the quota that nobody else may use (`quota.py`).
What a slice did is in the ledger, so a runner may start it again at any time.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import apache_beam as beam
import pystac
from apache_beam.io.filesystems import FileSystems

from beam_jobs import runner
from beam_jobs.collect import collecting, job_folder, ledger, ledger_store, patch_files, quota
from beam_jobs.collect.collecting import Pair
from beam_jobs.collect.config import CollectConfig
from beam_jobs.collect.fetch_slice import SliceTask, run_slice
from beam_jobs.collect.job import CollectJob, OnProgress, StrPath
from beam_jobs.collect.job_folder import JobFolder
from beam_jobs.collect.ledger_store import LocalCopy
from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.contracts.object_store import is_remote
from beam_jobs.earth_engine.connection import connect
from beam_jobs.earth_engine.listing import Acquisition
from beam_jobs.earth_engine.requests import PixelRequest, check_limits
from beam_jobs.engines import checks
from beam_jobs.errors import DataError
from beam_jobs.places.place import read_places
from beam_jobs.repeating import repeating

CATALOG_NAME = "items.ndjson"


@dataclass(frozen=True, kw_only=True)
class FetchSummary:
    """What the folder holds now, and what this run did.

    Attributes:
        num_units: places x windows that were wanted.
        state: state of the ledger.
        num_requests: requests of this run.
        seconds: duration of this run.
        catalog: path or URI of the catalog.
    """

    num_units: int
    state: ledger.LedgerState
    num_requests: int
    seconds: float
    catalog: str


def fetch(
    job: CollectJob,
    output_dir: StrPath,
    *,
    on_progress: OnProgress | None = None,
    beam_options: Sequence[str] = (),
) -> FetchSummary:
    """Fetch every pair that is still missing, then write the catalog of all.

    Args:
        job: what is asked for, and over which connection.
        output_dir: folder of the job, path or URI; made if needed.
        on_progress: called with (units done or rejected, units in all).
        beam_options: as on a Beam command line; see `runner.pipeline_options`.

    Raises:
        DataError: the places break a rule, the folder belongs to another job, Earth
            Engine stopped answering (reason quota_exhausted, no_credentials or
            stopped), or no pair came.
    """
    # Set the options before the first access to a store: endpoint and keys may be among
    # them.
    num_slices = quota.num_slices(job.config.quota)
    options = runner.pipeline_options(num_slices, beam_options)
    FileSystems.set_options(options)
    checks.check(options)
    collect = job.config.collect
    with job_folder.hold(output_dir, settings.canonical_json(collect)) as folder:
        summary = fetch_units(job, folder, on_progress=on_progress, beam_options=beam_options)
        # The import takes seconds, because it brings TensorFlow, so it comes last.
        from beam_jobs.catalogs.catalog import write_items

        write_items(_items(folder, collect), summary.catalog)
        return summary


def fetch_units(
    job: CollectJob,
    folder: JobFolder,
    *,
    on_progress: OnProgress | None = None,
    beam_options: Sequence[str] = (),
) -> FetchSummary:
    """Fetch the missing pairs into a folder that is held already; write no catalog.

    Args:
        job: what is asked for, and over which connection.
        folder: folder of the job.
        on_progress: called with (units done or rejected, units in all).
        beam_options: as on a Beam command line.

    Raises:
        DataError: as `fetch`.
    """
    num_units = sum(1 for _ in job.units())
    example_requests(job.config.collect, job.places)
    # The driver connects too, so that missing credentials are reported before workers
    # start.
    connect(job.connection)
    # A worker may run in another directory.
    is_uri = is_remote(job.places)
    places = os.fspath(job.places) if is_uri else os.path.abspath(job.places)
    tasks = [
        SliceTask(job=replace(job, places=places), folder=folder, number=number)
        for number in range(quota.num_slices(job.config.quota))
    ]
    begun = time.monotonic()
    with ledger_store.local_copy(folder.ledger_dir) as copy:
        before = ledger.read_state(copy.path)
        with _reported(copy, num_units, on_progress):
            _run(tasks, beam_options)
        state = ledger.read_state(copy.refresh())
        ledger.write_rejected(copy.path, f"{folder.path}/{ledger.REJECTED_NAME}")
    num_left = sum(unit.unit_id not in state.finished for unit in job.units())
    _check_ended(folder, state, num_left)
    return FetchSummary(
        num_units=num_units,
        state=state,
        num_requests=state.num_requests - before.num_requests,
        seconds=time.monotonic() - begun,
        catalog=f"{folder.path}/{CATALOG_NAME}",
    )


def _check_ended(folder: JobFolder, state: ledger.LedgerState, num_left: int) -> None:
    """Check that every unit is done or rejected, and that nothing stopped the job.

    A runner may accept a job and return before the job is done.

    Raises:
        DataError: as `fetch`.
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


def example_requests(config: CollectConfig, places: StrPath) -> dict[Sensor, PixelRequest]:
    """Return the pixel requests of the first unit; those of all others have its size.

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
    """Yield the items of all pairs by unit, in whatever order the pairs came."""
    with ledger_store.local_copy(folder.ledger_dir) as copy:
        for entry in ledger.done_entries(copy.path):
            unit, pair = collecting.unit_of(entry), Pair.from_dict(entry)
            yield from patch_files.stac_items(unit, pair, config, entry.get("cloud_fraction"))


@contextmanager
def _reported(copy: LocalCopy, num_units: int, on_progress: OnProgress | None) -> Iterator[None]:
    """Call `on_progress` now and then while the body runs.

    Workers may be other processes, so the numbers come from the ledger.
    """
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
