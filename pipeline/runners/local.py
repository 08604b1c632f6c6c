"""Local runner: the pipeline in this process, with ML Metadata in SQLite.

RunConfig -> executed components; callbacks report the progress.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import launcher, runtime_parameter_utils

from components.training_log import LOGGER_NAME
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig
from pipeline.runners.artifact_files import Inventory

OnComponent = Callable[[str], None]
OnStep = Callable[[str, int, int, Mapping[str, float]], None]
OnNotice = Callable[[str, bool], None]


class _WatchedRunner(LocalDagRunner):
    """LocalDagRunner with a callback before each component.

    Source: tfx/orchestration/local/local_dag_runner.py, without partial runs.
    """

    def __init__(self, on_component: OnComponent, inventory: Inventory) -> None:
        super().__init__()
        self._on_component, self._inventory = on_component, inventory

    def run_with_ir(self, pipeline: Any, run_options: Any = None) -> None:
        """Launch the nodes in the compiled order, which is topological."""
        run_id = datetime.datetime.now(datetime.timezone.utc).isoformat()
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        )
        deployment = runner_utils.extract_local_deployment_config(pipeline)
        connection = deployment.metadata_connection_config
        connection = getattr(connection, connection.WhichOneof("connection_config"))
        for node in pipeline.nodes:
            component_id = node.pipeline_node.node_info.id
            self._on_component(component_id)
            done = launcher.Launcher(
                pipeline_node=node.pipeline_node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=pipeline.pipeline_info,
                pipeline_runtime_spec=pipeline.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, component_id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(
                    deployment, component_id
                ),
            ).launch()
            if done is not None:
                self._inventory.record(component_id, done.output_dict)


class _StepHandler(logging.Handler):
    """Turn the Trainers' log records into callbacks: TFX hands none to `run_fn`."""

    def __init__(self, on_step: OnStep, on_notice: OnNotice) -> None:
        super().__init__(logging.INFO)
        self._on_step, self._on_notice = on_step, on_notice

    def emit(self, record: logging.LogRecord) -> None:
        values = record.__dict__
        if "num_steps" in values:
            self._on_step(
                values["component"], values["step"], values["num_steps"], values["values"]
            )
        else:
            self._on_notice(record.getMessage(), record.levelno >= logging.WARNING)


def run_local(
    config: RunConfig, on_component: OnComponent, on_step: OnStep, on_notice: OnNotice
) -> None:
    """Run the components of `config`; TFX's cache skips those with unchanged inputs.

    Args:
        config: the run; `local_root` names a local folder when its root is on an object
            store.
        on_component: called with a component's id before it is launched, cached or not.
        on_step: called with what trains, step, number of steps and values.
        on_notice: called with other messages of a training, e.g. that it continues from
            a checkpoint, and whether the message is a warning, e.g. an alarm of the
            health checks.
    """
    Path(config.metadata_path).parent.mkdir(parents=True, exist_ok=True)
    connection = metadata.sqlite_metadata_connection_config(config.metadata_path)
    logger, handler = logging.getLogger(LOGGER_NAME), _StepHandler(on_step, on_notice)
    level = logger.level
    # The root logger's handlers decide what reaches the terminal; this logger only has
    # to let INFO through.
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        inventory = Inventory(config.metadata_path)
        inventory.forget_incomplete(connection, on_notice)
        _WatchedRunner(on_component, inventory).run(create_pipeline(config, connection))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
