"""The nodes of a compiled pipeline, launched one at a time by TFX's own launcher.

TFX Pipeline and the place of ML Metadata -> executions, their outputs and lineage. All
runners launch nodes here: the local runner one after the other, `one_node` a single
one. Drivers, caching and lineage are TFX's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ml_metadata import proto
from tfx.dsl.compiler import constants
from tfx.dsl.compiler.compiler import Compiler
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import data_types, launcher, runtime_parameter_utils

from beam_jobs.contracts.locations import remove_tree
from beam_jobs.errors import DataError
from models.training.distribution import num_workers
from pipeline.metadata_store import (
    Database,
    Place,
    UnreachableDatabaseError,
    check_reachable,
    connection_config,
)
from pipeline.runners.artifact_files import Inventory
from pipeline.runners.retrying import RetryConfig, retried

OnNotice = Callable[[str, bool], None]
Outcome = Literal["done", "cached", "done_before"]
"""How a launch ended well.

"done": the node's work was done. "cached": TFX took its outputs from the cache.
"done_before": an earlier launch in the same run had ended well.
"""
_GOOD_STATES = (proto.Execution.COMPLETE, proto.Execution.CACHED)
_OPEN_STATES = (proto.Execution.NEW, proto.Execution.RUNNING)
_RUN = constants.PIPELINE_RUN_CONTEXT_TYPE_NAME
"""Type of the context that all executions of a run are in."""


@dataclass(frozen=True, kw_only=True)
class Launching:
    """What launches need besides the pipeline.

    Attributes:
        place: where ML Metadata is.
        inventory: of the outputs.
        retries: after transient faults.
        on_notice: called with one line, and True for a warning.
    """

    place: Place
    inventory: Inventory
    retries: RetryConfig
    on_notice: OnNotice


class Nodes:
    """The nodes of one run of a pipeline."""

    def __init__(self, pipeline: Pipeline, run_id: str, launching: Launching) -> None:
        """Compile the pipeline.

        Args:
            pipeline: the pipeline.
            run_id: id of the run in ML Metadata. Nodes that are launched under one id
                read each other's outputs.
            launching: see there.
        """
        self._launching, self._run_id = launching, run_id
        self._pipeline = Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(
            self._pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        self._deployment = runner_utils.extract_local_deployment_config(self._pipeline)
        self._nodes = {
            node.pipeline_node.node_info.id: node.pipeline_node for node in self._pipeline.nodes
        }

    @property
    def ids(self) -> tuple[str, ...]:
        """All nodes, in topological order."""
        return tuple(self._nodes)

    def upstream(self, node: str) -> tuple[str, ...]:
        """Return the nodes that must have ended well before this one is launched."""
        return tuple(sorted(self._nodes[node].upstream_nodes))

    def launch(self, node: str) -> Outcome:
        """Launch a node; retry it after transient faults, unless it is one of several.

        One worker of a training cannot try again alone: its peers wait for its end.

        A node whose process was killed keeps its execution, which the next launch under
        the same run id takes up. What the killed process left of its outputs is removed
        first.

        Raises:
            DataError: the inputs are not in ML Metadata.
            Exception: what the executor raises.
        """
        of = self._launching
        retries = of.retries if num_workers() < 2 else replace(of.retries, num_retries=0)
        return retried(lambda: self._launch(node), retries, node, of.on_notice)

    def close_unfinished(self) -> int:
        """Mark executions that killed processes left open as failed; count them.

        It is for the end of a run. A later launch under the same run id takes them up
        all the same.
        """

        def close() -> int:
            with _Connection(self._launching.place) as handle:
                run = handle.store.get_context_by_type_and_name(_RUN, self._run_id)
                found = [] if run is None else handle.store.get_executions_by_context(run.id)
                unfinished = [one for one in found if one.last_known_state in _OPEN_STATES]
                for execution in unfinished:
                    execution.last_known_state = proto.Execution.FAILED
                if unfinished:
                    handle.store.put_executions(unfinished)
                return len(unfinished)

        of = self._launching
        return retried(close, of.retries, f"run {self._run_id}", of.on_notice)

    def _launch(self, node: str) -> Outcome:
        of = self._launching
        connection = _Connection(of.place)
        # Not in `launch`'s retries alone: a training must not be done again because the
        # database was away for a moment when it was done.
        retried(lambda: self._forget_incomplete(connection, node), of.retries, node, of.on_notice)
        started = _Launcher(
            of,
            pipeline_node=self._nodes[node],
            mlmd_connection=connection,
            pipeline_info=self._pipeline.pipeline_info,
            pipeline_runtime_spec=self._pipeline.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, node),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, node),
        )
        done = started.launch()
        if started.outcome == "done" and done is not None:
            of.inventory.record(node, done.output_dict)
        return started.outcome

    def _forget_incomplete(self, connection: metadata.Metadata, node: str) -> None:
        with connection as handle:
            self._launching.inventory.forget_incomplete(handle, node, self._launching.on_notice)


class _Connection(metadata.Metadata):
    """ML Metadata that says in one line that its database is gone.

    A store whose connection broke must not be used again: ML Metadata's C++ code then
    ends the process. So each `with` opens a new one, as TFX does.
    """

    def __init__(self, place: Place) -> None:
        super().__init__(connection_config(place))
        self._place = place

    def __enter__(self) -> metadata.Metadata:
        check_reachable(self._place)
        try:
            return super().__enter__()
        except RuntimeError as error:
            if not isinstance(self._place, Database):
                raise
            raise UnreachableDatabaseError(
                f"{self._place}: the database does not let ML Metadata in ({error}): check its "
                "log, then run the same command again"
            ) from error


class _Launcher(launcher.Launcher):
    """TFX's launcher, patient with ML Metadata, which says how the launch ended.

    Source: tfx/orchestration/portable/launcher.py.
    """

    outcome: Outcome = "done"

    def __init__(self, launching: Launching, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._launching = launching

    def _patiently(self, work: Callable[[], Any]) -> Any:
        of = self._launching
        return retried(work, of.retries, self._pipeline_node.node_info.id, of.on_notice)

    def _prepare_execution(self) -> Any:
        """Prepare the execution; also tell a cached one from one without inputs.

        Raises:
            DataError: the inputs are not in ML Metadata, which TFX only logs.
        """
        prepared = self._patiently(super()._prepare_execution)
        if prepared.is_execution_needed:
            return prepared
        self.outcome = "done_before" if prepared.execution_metadata is None else "cached"
        if self.outcome == "done_before" and not self._is_done(prepared):
            raise DataError(
                f"{self._pipeline_node.node_info.id}: its inputs are not in ML Metadata: run the "
                f"nodes before it first, {', '.join(self._pipeline_node.upstream_nodes)}",
                "missing_output",
            )
        return prepared

    def _is_done(self, prepared: Any) -> bool:
        number = prepared.execution_info.execution_id
        if number is None:
            return False

        def read() -> list[Any]:
            with self._mlmd_connection as handle:
                return list(handle.store.get_executions_by_id([number]))

        return any(one.last_known_state in _GOOD_STATES for one in self._patiently(read))

    def _run_executor(self, execution_info: data_types.ExecutionInfo) -> Any:
        # Left by a process that was killed in the same execution.
        for artifacts in execution_info.output_dict.values():
            for artifact in artifacts:
                if not artifact.is_external:
                    remove_tree(artifact.uri)
        return super()._run_executor(execution_info)

    def _publish_successful_execution(self, *arguments: Any) -> None:
        publish = super()._publish_successful_execution
        self._patiently(lambda: publish(*arguments))

    def _publish_failed_execution(self, *arguments: Any, **named: Any) -> None:
        publish = super()._publish_failed_execution
        self._patiently(lambda: publish(*arguments, **named))
