"""export: pairs of places as files in a bucket, made by batch tasks.

Input: `places.geojson`. Output: files in a Google Cloud Storage bucket, and ledger,
`rejected.ndjson` and `items.ndjson` in one folder. If a job was killed, run it again:
it finds its running tasks in the ledger.

An export is slower than `fetch` and needs a bucket. But nobody has to stay online for
it, and it takes what is too large for one request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

from apache_beam.io.filesystems import FileSystems

from beam_jobs import runner
from beam_jobs.collect import collecting, exported_files, job_folder, ledger, ledger_store, quota
from beam_jobs.collect.collecting import Pair, Unit
from beam_jobs.collect.fetch import CATALOG_NAME, FetchSummary
from beam_jobs.collect.job import CollectJob, OnProgress, StrPath
from beam_jobs.collect.job_folder import JobFolder, Watch
from beam_jobs.collect.ledger import LedgerState, Step
from beam_jobs.contracts import settings
from beam_jobs.contracts.bands import Sensor
from beam_jobs.earth_engine import exports, listing
from beam_jobs.earth_engine.connection import connect
from beam_jobs.earth_engine.errors import EarthEngineError
from beam_jobs.earth_engine.exports import TaskState
from beam_jobs.errors import DataError

T = TypeVar("T")
_PENDING_IN_A_ROW = 20
"""Tasks run in the order they were started. After so many that still wait, the later
ones are not looked at."""


@dataclass(kw_only=True)
class _Running:
    """A unit whose tasks are in the queue.

    Attributes:
        unit: place and window.
        pair: chosen scenes.
        tasks: sensor -> id of the task that runs; a task that succeeded is removed.
        num_starts: sensor -> how often its task was started.
    """

    unit: Unit
    pair: Pair
    tasks: dict[Sensor, str] = field(default_factory=dict)
    num_starts: dict[Sensor, int] = field(default_factory=dict)


def export(
    job: CollectJob, output_dir: StrPath, *, on_progress: OnProgress | None = None
) -> FetchSummary:
    """Export every pair that is still missing, then write the catalog of all.

    Args:
        job: what is exported, and over which connection.
        output_dir: folder of the job, path or URI; made if needed.
        on_progress: called with (units done or rejected, units in all).

    Raises:
        DataError: there is no bucket, the places break a rule, the folder belongs to
            another job, Earth Engine stopped answering, no pair came, or exported files
            are not in `export.local_dir` yet.
    """
    config = job.config
    if not config.export.bucket:
        raise settings.SettingsError("export needs a bucket; add --set export.bucket=<name>")
    decides = f"{settings.canonical_json(config.collect)} gs://{config.export.bucket}/{config.export.prefix}"
    FileSystems.set_options(runner.pipeline_options(1))
    with job_folder.hold(output_dir, f"{decides} {config.export.file_format}") as folder:
        num_units = sum(1 for _ in job.units())
        connect(job.connection)
        with ledger_store.local_copy(folder.ledger_dir) as copy:
            before = ledger.read_state(copy.path)
            num_before = before.num_requests
            if job.retry_rejected:
                before.forget_rejected()
            begun = time.monotonic()

            def report(num_finished: int) -> None:
                if on_progress is not None:
                    on_progress(min(num_finished, num_units), num_units)

            try:
                _Exporter(job, folder, before, report).run()
            finally:
                ledger.write_rejected(copy.refresh(), f"{folder.path}/{ledger.REJECTED_NAME}")
            state = ledger.read_state(copy.path)
            catalog = f"{folder.path}/{CATALOG_NAME}"
            # The import takes seconds, because it brings TensorFlow, so it comes last.
            from beam_jobs.catalogs.catalog import write_items

            write_items(
                exported_files.items(copy.path, folder, config, state.num_rejected), catalog
            )
        return FetchSummary(
            num_units=num_units,
            state=state,
            num_requests=state.num_requests - num_before,
            seconds=time.monotonic() - begun,
            catalog=catalog,
        )


class _Exporter:
    """Starts tasks, never more than the queue may hold, and watches them."""

    def __init__(
        self,
        job: CollectJob,
        folder: JobFolder,
        state: LedgerState,
        report: Callable[[int], None],
    ) -> None:
        self._job, self._state, self._report = job, state, report
        self._config = config = job.config
        self._limiter = quota.Limiter(config.quota.max_requests_per_second)
        self._writer = ledger_store.open_writer(folder.ledger_dir)
        self._holding = Watch(folder)
        self._num_finished = len(state.finished)
        self._num_given_up = 0

    def run(self) -> None:
        """Work until every unit is done or rejected.

        Raises:
            DataError: Earth Engine stopped answering; all tasks that were started are
                in the ledger.
        """
        try:
            with ThreadPoolExecutor(self._config.quota.max_concurrency) as pool:
                units = self._open_units()
                running: list[_Running] = []
                while True:
                    stopped = self._holding.why_stopped()
                    if stopped is not None:
                        raise stopped
                    # Listing takes seconds, so only a few units are started before the
                    # next look at the queue.
                    room = (
                        self._config.export.max_tasks - sum(len(entry.tasks) for entry in running)
                    ) // 2
                    batch = list(
                        islice(units, max(0, min(room, 4 * self._config.quota.max_concurrency)))
                    )
                    running += [
                        entry for entry in pool.map(self._begin, batch) if entry is not None
                    ]
                    self._report(self._num_finished)
                    if not running and not batch:
                        return
                    if len(batch) == 0 or room <= len(batch):
                        time.sleep(self._config.export.poll_s)
                    running = self._watch(running, pool)
        except EarthEngineError as error:
            hint = "started tasks continue; run the same command again"
            raise DataError(f"{error}; {hint}", error.reason) from error
        finally:
            self._writer.close()

    def _open_units(self) -> Iterator[Unit]:
        for unit in self._job.units():
            if unit.unit_id not in self._state.finished:
                yield unit

    def _begin(self, unit: Unit) -> _Running | None:
        """Return a unit with its tasks, or None if it is rejected.

        Tasks of an earlier run are taken over; otherwise new ones are started.
        """
        try:
            known = self._state.pending.get(unit.unit_id)
            entry = _Running(
                unit=unit, pair=self._choose(unit) if known is None else Pair.from_dict(known)
            )
            for sensor in ("s2", "s1"):
                task_id = (known or {}).get(f"task_{sensor}")
                if task_id is None:
                    self._start(entry, sensor, 1)
                else:
                    entry.tasks[sensor] = task_id
                    entry.num_starts[sensor] = int((known or {})[f"num_starts_{sensor}"])
            self._num_given_up = 0
            return entry
        except DataError as error:
            self._reject(unit, error)
            return None

    def _choose(self, unit: Unit) -> Pair:
        bounds = collecting.listing_bounds(collecting.grid_of(unit, self._config.collect))
        start, end = unit.window.times
        ask = partial(
            listing.list_acquisitions, bounds, start, end, self._config.collect.earth_engine
        )
        found = self._ask(unit, "list", ask)
        pair = collecting.choose(found, self._config.collect)
        self._writer.add(unit.unit_id, "chosen", num_requests=1, **pair.to_dict())
        return pair

    def _start(self, entry: _Running, sensor: Sensor, num_starts: int) -> None:
        unit, options = entry.unit, self._config.export
        grid = collecting.grid_of(unit, self._config.collect)
        request = collecting.pixel_requests(entry.pair, grid, self._config.collect)[sensor]
        prefix = exported_files.prefix_of(unit, sensor, options)
        ask = partial(
            exports.start_export,
            request,
            bucket=options.bucket,
            prefix=prefix,
            file_format=options.file_format,
        )
        task_id = self._ask(unit, sensor, ask)
        found = {
            f"task_{sensor}": task_id,
            f"num_starts_{sensor}": num_starts,
            **entry.pair.to_dict(),
        }
        self._writer.sync(self._writer.add(unit.unit_id, "started", num_requests=1, **found))
        entry.tasks[sensor], entry.num_starts[sensor] = task_id, num_starts

    def _watch(self, running: list[_Running], pool: ThreadPoolExecutor) -> list[_Running]:
        """Look at the tasks in the order they were started.

        Returns:
            The units that still run.
        """
        step = self._config.quota.max_concurrency
        num_pending = 0
        left: list[_Running] = []
        for begin in range(0, len(running), step):
            if num_pending >= _PENDING_IN_A_ROW:
                return left + running[begin:]
            part = running[begin : begin + step]
            for entry, states in zip(part, pool.map(self._states, part), strict=True):
                if self._is_left(entry, states):
                    left.append(entry)
                is_pending = bool(states) and all(
                    state.state == "PENDING" for state in states.values()
                )
                num_pending = num_pending + 1 if is_pending else 0
            self._report(self._num_finished)
        return left

    def _states(self, entry: _Running) -> dict[Sensor, TaskState]:
        found: dict[Sensor, TaskState] = {}
        for sensor, task_id in entry.tasks.items():
            try:
                found[sensor] = self._ask(entry.unit, "task", partial(exports.get_task, task_id))
            except EarthEngineError as error:
                # Earth Engine forgets tasks after days. Such a task counts as failed
                # and is started again.
                if error.reason != "not_found":
                    raise
                found[sensor] = TaskState(
                    task_id=task_id,
                    state="FAILED",
                    error=str(error),
                    destination_uris=(),
                    eecu_seconds=0.0,
                )
        return found

    def _is_left(self, entry: _Running, states: dict[Sensor, TaskState]) -> bool:
        """Deal with the states of a unit's tasks; return whether it still runs."""
        try:
            for sensor, state in states.items():
                if state.state == "SUCCEEDED":
                    del entry.tasks[sensor]
                    cost = (
                        {}
                        if state.eecu_seconds != state.eecu_seconds
                        else {"eecu_seconds": state.eecu_seconds}
                    )
                    self._writer.add(entry.unit.unit_id, "answered", step=sensor, **cost)
                elif state.state == "CANCELLED":
                    raise DataError(
                        f"the task {state.task_id} of {sensor} was cancelled", "task_cancelled"
                    )
                elif state.state == "FAILED":
                    self._writer.add(
                        entry.unit.unit_id,
                        "failed",
                        step=sensor,
                        reason="task_failed",
                        detail=state.error,
                    )
                    if entry.num_starts[sensor] >= self._config.export.max_attempts:
                        raise DataError(
                            f"the export of {sensor} failed: {state.error}", "task_failed"
                        )
                    self._start(entry, sensor, entry.num_starts[sensor] + 1)
        except DataError as error:
            self._reject(entry.unit, error)
            return False
        if entry.tasks:
            return True
        found = {**entry.pair.to_dict(), **collecting.place_fields(entry.unit)}
        self._writer.add(entry.unit.unit_id, "done", **found)
        self._num_finished += 1
        return False

    def _ask(self, unit: Unit, step: Step, request: Callable[[], T]) -> T:
        def on_failure(error: EarthEngineError) -> None:
            details = {"step": step, "reason": error.reason, "status": error.status}
            self._writer.add(unit.unit_id, "failed", num_requests=1, **details)

        return quota.call(request, self._limiter, config=self._config.quota, on_failure=on_failure)

    def _reject(self, unit: Unit, error: DataError) -> None:
        """Reject the unit, unless the error would meet all later units too.

        Raises:
            EarthEngineError: it would.
        """
        if isinstance(error, EarthEngineError):
            if error.reason in quota.STOPPING:
                raise error
            self._num_given_up += 1
            if self._num_given_up >= self._config.quota.max_failures_in_a_row:
                raise error
        self._writer.add(
            unit.unit_id, "rejected", reason=error.reason, detail=" ".join(str(error).split())
        )
        self._num_finished += 1
