"""Runs the pipeline in this process on ML Metadata in SQLite, and tells a watcher how far it is.

RunConfig -> executed components. `pipeline/__main__.py` calls `run_local`; progress arrives through log records, since
TFX's runner and its Trainer offer no callback.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from tfx import v1 as tfx

from components.training_log import LOGGER_NAME
from pipeline.config import RunConfig
from pipeline.full import create_pipeline

ComponentCallback = Callable[[str], None]
StepCallback = Callable[[str, int, int, Mapping[str, float]], None]

_COMPONENT_STARTS = "Component %s is running."
"""What TFX's LocalDagRunner logs before each component."""


class _Watcher(logging.Handler):
    """Passes TFX's and the Trainers' log records on as callbacks."""

    def __init__(self, on_component: ComponentCallback, on_step: StepCallback) -> None:
        super().__init__(logging.INFO)
        self._on_component = on_component
        self._on_step = on_step

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == LOGGER_NAME and hasattr(record, "step"):
            values = record.__dict__
            self._on_step(values["component"], values["step"], values["num_steps"], values["values"])
        elif record.msg == _COMPONENT_STARTS and isinstance(record.args, tuple):
            self._on_component(str(record.args[0]))


def run_local(config: RunConfig, on_component: ComponentCallback, on_step: StepCallback) -> None:
    """Runs every component of `config` that the cache cannot answer.

    Args:
        config: the run; its root must be a local folder.
        on_component: called with a component's id when it starts.
        on_step: called with what trains, step, number of steps and values.
    """
    Path(config.metadata_path).parent.mkdir(parents=True, exist_ok=True)
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(config.metadata_path)
    pipeline = create_pipeline(config, connection)
    watcher = _Watcher(on_component, on_step)
    loggers = [logging.getLogger("absl"), logging.getLogger(LOGGER_NAME)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        # Both loggers must let INFO through; what reaches the terminal is the other handlers' business.
        logger.setLevel(logging.INFO)
        logger.addHandler(watcher)
    try:
        tfx.orchestration.LocalDagRunner().run(pipeline)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(watcher)
            logger.setLevel(level)
