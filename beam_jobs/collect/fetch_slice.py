"""One slice of a fetch: list, choose and fetch the pairs of its units.

Input: a `SliceTask`. Output: files of the units and entries in the ledger. Threads work
within the slice's share of the quota.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from beam_jobs.collect import collecting, ledger_store, patch_files, quota
from beam_jobs.collect.collecting import Pair, Unit
from beam_jobs.collect.job import CollectJob
from beam_jobs.collect.job_folder import JobFolder, Watch
from beam_jobs.collect.ledger import LedgerState, Step, read_state
from beam_jobs.collect.ledger_store import Writer
from beam_jobs.earth_engine import listing, pixels
from beam_jobs.earth_engine.connection import connect
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.requests import PixelRequest
from beam_jobs.errors import DataError
from beam_jobs.storage import files

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SliceTask:
    """What a worker needs to know; it pickles.

    Attributes:
        job: what is asked for; each slice takes its own share of the places.
        folder: folder of the job.
        number: number of the slice, from 0.
    """

    job: CollectJob
    folder: JobFolder
    number: int

    def belongs(self, unit_id: str) -> bool:
        """Return whether the unit belongs to this slice."""
        return collecting.slice_of(unit_id, quota.num_slices(self.job.config.quota)) == self.number


class _StoppedError(Exception):
    """The job stops; the unit stays as it is."""


def run_slice(task: SliceTask) -> None:
    """Work through the slice until it is done or the job is stopped.

    Raises:
        EarthEngineError: the connection cannot be made.
    """
    connect(task.job.connection)
    with ledger_store.local_copy(task.folder.ledger_dir) as copy:
        state = read_state(copy.path, task.belongs)
    if task.job.retry_rejected:
        state.forget_rejected()
    writer = ledger_store.open_writer(task.folder.ledger_dir)
    try:
        _Fetcher(task, state, writer).run()
    finally:
        writer.close()


class _Fetcher:
    """The threads of one slice and what they share."""

    def __init__(self, task: SliceTask, state: LedgerState, writer: Writer) -> None:
        self._task, self._state, self._writer = task, state, writer
        self._config = task.job.config.collect
        self._share = quota.share(task.job.config.quota)
        self._limiter = quota.Limiter(self._share.rate)
        self._watch = Watch(task.folder)
        self._num_given_up = 0
        self._lock = threading.Lock()

    def run(self) -> None:
        """Keep every thread busy, with no more units in hand than that needs."""
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._share.concurrency) as pool:
            try:
                for unit in self._open_units():
                    running.add(pool.submit(self._run_unit, unit))
                    if len(running) >= 2 * self._share.concurrency:
                        finished, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in finished:
                            future.result()
                    if self._watch.why_stopped() is not None:
                        break
                wait(running)
            except KeyboardInterrupt:
                # With one worker, Ctrl-C arrives here. The threads finish their units,
                # and the driver reports the rest.
                self._watch.stop("interrupted", "interrupted")
        for future in running:
            future.result()

    def _open_units(self) -> Iterator[Unit]:
        for unit in self._task.job.units():
            if self._task.belongs(unit.unit_id) and unit.unit_id not in self._state.finished:
                yield unit

    def _run_unit(self, unit: Unit) -> None:
        try:
            self._collect(unit)
            with self._lock:
                self._num_given_up = 0
        except _StoppedError:
            return
        except EarthEngineError as error:
            if error.reason in quota.STOPPING:
                self._watch.stop(error.reason, str(error))
                return
            self._reject(unit, error)
            with self._lock:
                self._num_given_up += 1
                given_up = self._num_given_up
            if given_up >= self._task.job.config.quota.max_failures_in_a_row:
                why = f"{given_up} places in a row were given up, the last one because: {error}"
                self._watch.stop("stopped", why)
        except DataError as error:
            self._reject(unit, error)

    def _collect(self, unit: Unit) -> None:
        """Write the files of a unit, then its entry.

        A file that exists is complete and is not asked for again.
        """
        # A pair that is chosen only now cannot have files yet, and each look at a store
        # is a request.
        was_begun = unit.unit_id in self._state.pending
        pair, entry = self._pair(unit)
        grid = collecting.grid_of(unit, self._config)
        stem = self._stem(unit)
        requests = collecting.pixel_requests(pair, grid, self._config)
        if was_begun and files.exists(patch_files.path_of(stem, "s2")):
            cloud_fraction = patch_files.stored_cloud_fraction(stem)
        else:
            patch = patch_files.decode_s2(
                self._fetch(unit, requests["s2"]), requests["s2"], self._config
            )
            patch_files.check_s2(patch, self._config)
            # Store the choice before the first file. Otherwise a killed job would lose
            # the choice and ask for the file again.
            self._writer.sync(entry)
            patch_files.write_s2(stem, patch, grid, self._config)
            cloud_fraction = patch.cloud_fraction
        if not (was_begun and files.exists(patch_files.path_of(stem, "s1"))):
            data = patch_files.decode_s1(self._fetch(unit, requests["s1"]))
            patch_files.check_s1(data, self._config)
            patch_files.write_s1(stem, data, grid, self._config)
        found = {**pair.to_dict(), **collecting.place_fields(unit)}
        self._writer.add(unit.unit_id, "done", cloud_fraction=cloud_fraction, **found)

    def _pair(self, unit: Unit) -> tuple[Pair, int]:
        """Return the chosen pair and the number of its entry in the ledger.

        If an earlier run chose a pair, its choice is taken from the ledger and the
        number is 0.
        """
        known = self._state.pending.get(unit.unit_id)
        if known is not None:
            return Pair.from_dict(known), 0
        bounds = collecting.listing_bounds(collecting.grid_of(unit, self._config))
        start, end = unit.window.times
        ask = partial(listing.list_acquisitions, bounds, start, end, self._config.earth_engine)
        found, seconds = self._timed(unit, "list", ask)
        answered = {"num_requests": 1, "request_seconds": seconds}
        try:
            pair = collecting.choose(found, self._config)
        except DataError:
            self._writer.add(unit.unit_id, "answered", step="list", **answered)
            raise
        # If the ledger lost an earlier choice, files of that choice may show other
        # scenes.
        self._discard(unit)
        return pair, self._writer.add(unit.unit_id, "chosen", **answered, **pair.to_dict())

    def _fetch(self, unit: Unit, request: PixelRequest) -> bytes:
        def ask() -> pixels.ProfiledPixels:
            if self._task.job.profiled:
                return pixels.fetch_profiled(request)
            return pixels.ProfiledPixels(data=pixels.fetch_pixels(request), eecu_seconds=math.nan)

        found, seconds = self._timed(unit, request.sensor, ask)
        cost = {} if math.isnan(found.eecu_seconds) else {"eecu_seconds": found.eecu_seconds}
        self._writer.add(
            unit.unit_id,
            "answered",
            step=request.sensor,
            # A request of its own reads the profile.
            num_requests=1 + bool(cost),
            request_seconds=seconds,
            num_bytes=len(found.data),
            **cost,
        )
        return found.data

    def _timed(self, unit: Unit, step: Step, ask: Callable[[], T]) -> tuple[T, float]:
        """Return the answer, and the seconds of the try that brought it."""
        begun = time.monotonic()

        def timed() -> T:
            nonlocal begun
            begun = time.monotonic()
            return ask()

        def on_failure(error: EarthEngineError) -> None:
            seconds = round(time.monotonic() - begun, 3)
            details = {"step": step, "reason": error.reason, "status": error.status}
            self._writer.add(
                unit.unit_id, "failed", num_requests=1, request_seconds=seconds, **details
            )
            if self._watch.why_stopped() is not None:
                raise _StoppedError from error

        if self._watch.why_stopped() is not None:
            raise _StoppedError
        answer = quota.call(
            timed, self._limiter, config=self._task.job.config.quota, on_failure=on_failure
        )
        return answer, round(time.monotonic() - begun, 3)

    def _stem(self, unit: Unit) -> str:
        return f"{self._task.folder.path}/{unit.stem}"

    def _discard(self, unit: Unit) -> None:
        stem = self._stem(unit)
        files.delete_files([patch_files.path_of(stem, kind) for kind in patch_files.KINDS])

    def _reject(self, unit: Unit, error: DataError) -> None:
        self._discard(unit)
        self._writer.add(
            unit.unit_id, "rejected", reason=error.reason, detail=" ".join(str(error).split())
        )
