"""What ML Metadata knows of the last run: states, durations and output artifacts.

The place of ML Metadata -> RunRecord. A cached component has the artifacts of the
execution that made them, so the record of a second run is as complete as the first.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_metadata import metadata_store, proto

from beam_jobs.contracts.locations import locate
from beam_jobs.errors import DataError
from pipeline.metadata_store import Database, Place, check_reachable, connection_config

_STATE: Any = proto.Execution
_UNKNOWN_TIME = datetime.datetime.fromtimestamp(0, datetime.timezone.utc)


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """One output artifact: its URI, and its custom properties as plain values."""

    uri: str
    properties: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ComponentRecord:
    """One component of a run.

    Attributes:
        component_id: id in the pipeline.
        is_cached: whether TFX took the outputs from its cache.
        is_complete: whether it succeeded, cached or not.
        num_seconds: how long it ran; about 0 when cached.
        outputs: artifacts by output name.
    """

    component_id: str
    is_cached: bool
    is_complete: bool
    num_seconds: float
    outputs: Mapping[str, ArtifactRecord]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
        components: those that ran, in their order.
        started_at: when the first of them began.
    """

    components: tuple[ComponentRecord, ...]
    started_at: datetime.datetime = _UNKNOWN_TIME

    def output(self, component_id: str, name: str) -> ArtifactRecord:
        """Return one output artifact.

        Raises:
            DataError: the component did not succeed in this run, or has no such output,
                or the output was removed.
        """
        for component in self.components:
            if (
                component.component_id == component_id
                and component.is_complete
                and name in component.outputs
            ):
                found = component.outputs[name]
                # What a Pusher did not push is empty, and a store has no empty folders.
                is_empty = found.properties.get("pushed") == 0
                if not is_empty and not locate(found.uri).exists():
                    raise DataError(
                        f"{component_id}: its output {name!r} was in {found.uri}, which is gone: "
                        "use `terrapair run`, which makes it again",
                        "missing_output",
                    )
                return found
        raise DataError(
            f"{component_id}: no finished output {name!r} in the last run", "missing_output"
        )

    def is_complete(self, component_id: str) -> bool:
        """Return whether a component succeeded in this run, cached or not."""
        return any(
            item.component_id == component_id and item.is_complete for item in self.components
        )

    @property
    def num_cached(self) -> int:
        """Number of components whose outputs came from the cache."""
        return sum(component.is_cached for component in self.components)


def read_last_run(place: Place, pipeline_name: str, run_id: str = "") -> RunRecord:
    """Return the newest run of a pipeline.

    Args:
        place: where ML Metadata is.
        pipeline_name: name of the pipeline; one place may hold several.
        run_id: return the run of this id instead; "" = the newest.

    Raises:
        DataError: no metadata, or no such run of that pipeline.
        UnreachableDatabaseError: the database is gone.
    """
    for record in _runs(place, pipeline_name, run_id):
        return record
    what = f"run {run_id!r}" if run_id else "run"
    raise DataError(f"{place}: no {what} of pipeline {pipeline_name!r}", "missing_run")


def read_all_runs(place: Place, pipeline_name: str) -> list[RunRecord]:
    """Return all runs of a pipeline, the oldest first; see `read_last_run`."""
    return list(_runs(place, pipeline_name))[::-1]


def _runs(place: Place, pipeline_name: str, run_id: str = "") -> Iterator[RunRecord]:
    """Yield the runs of a pipeline, the newest first, or the one of an id."""
    if not isinstance(place, Database) and not Path(place).exists():
        raise DataError(
            f"{place}: no metadata, so nothing has run here yet: use `terrapair run` first",
            "missing_file",
        )
    check_reachable(place)
    store = metadata_store.MetadataStore(connection_config(place, is_written=False))
    pipeline = store.get_context_by_type_and_name("pipeline", pipeline_name)
    if pipeline is None:
        raise DataError(f"{place}: no run of pipeline {pipeline_name!r}", "missing_run")
    runs = [one for one in store.get_contexts_by_type("pipeline_run") if run_id in ("", one.name)]
    # A run belongs to the pipeline when its executions are also in the pipeline's
    # context.
    for run in sorted(runs, key=lambda context: context.id, reverse=True):
        ordered = sorted(
            store.get_executions_by_context(run.id), key=lambda execution: execution.id
        )
        if ordered and pipeline.id in {
            context.id for context in store.get_contexts_by_execution(ordered[0].id)
        }:
            started = ordered[0].create_time_since_epoch / 1000.0
            yield RunRecord(
                started_at=datetime.datetime.fromtimestamp(started, datetime.timezone.utc),
                components=tuple(
                    _component(store, execution, pipeline_name) for execution in ordered
                ),
            )


def _component(store: Any, execution: Any, pipeline_name: str) -> ComponentRecord:
    events = store.get_events_by_execution_ids([execution.id])
    outputs = [event for event in events if event.type == proto.Event.OUTPUT]
    artifacts = {
        item.id: item
        for item in store.get_artifacts_by_id([event.artifact_id for event in outputs])
    }
    records = {
        event.path.steps[0].key: ArtifactRecord(
            uri=artifacts[event.artifact_id].uri,
            properties={
                key: getattr(value, value.WhichOneof("value"))
                for key, value in artifacts[event.artifact_id].custom_properties.items()
                if value.WhichOneof("value")
            },
        )
        for event in outputs
    }
    (node,) = [
        context
        for context in store.get_contexts_by_execution(execution.id)
        if context.type == "node"
    ]
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    return ComponentRecord(
        component_id=node.name.removeprefix(f"{pipeline_name}."),
        is_cached=execution.last_known_state == _STATE.CACHED,
        is_complete=execution.last_known_state in (_STATE.CACHED, _STATE.COMPLETE),
        num_seconds=milliseconds / 1000.0,
        outputs=records,
    )
