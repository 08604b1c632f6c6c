"""Local runner: the pipeline in this process, one node after the other.

RunConfig -> executed components; callbacks report the progress.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.trainers.training_log import LOGGER_NAME
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig
from pipeline.metadata_store import Database, Place
from pipeline.runners.artifact_files import Inventory
from pipeline.runners.nodes import Launching, Nodes, OnNotice

OnComponent = Callable[[str], None]
OnStep = Callable[[str, int, int, Mapping[str, float]], None]


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
    config: RunConfig,
    place: Place,
    on_component: OnComponent,
    on_step: OnStep,
    on_notice: OnNotice,
) -> None:
    """Run the components of `config`; TFX's cache skips those with unchanged inputs.

    Args:
        config: the run; `local_root` names a local folder when its root is on an object
            store.
        place: where ML Metadata is.
        on_component: called with a component's id before it is launched, cached or not.
        on_step: called with what trains, step, number of steps and values.
        on_notice: called with other messages of a training, e.g. that it continues from
            a checkpoint, and whether the message is a warning, e.g. an alarm of the
            health checks.
    """
    run_id = datetime.datetime.now(datetime.timezone.utc).isoformat()
    nodes = compile_nodes(config, place, run_id, on_notice)
    with heard(on_step, on_notice):
        for node in nodes.ids:
            on_component(node)
            nodes.launch(node)


def compile_nodes(config: RunConfig, place: Place, run_id: str, on_notice: OnNotice) -> Nodes:
    """Return the nodes of one run of `config`, ready to be launched.

    Args:
        config: the run.
        place: where ML Metadata is.
        run_id: id that no other run of this root has.
        on_notice: called with one line for each retry and each output that is made
            again, and True for a warning.
    """
    if not isinstance(place, Database):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
    launching = Launching(
        place=place,
        inventory=Inventory(config.inventory_dir),
        retries=config.retries,
        on_notice=on_notice,
    )
    return Nodes(create_pipeline(config, run_id), run_id, launching)


@contextmanager
def heard(on_step: OnStep, on_notice: OnNotice) -> Iterator[None]:
    """Turn what Trainers log into callbacks until the body ends; see `run_local`."""
    logger, handler = logging.getLogger(LOGGER_NAME), _StepHandler(on_step, on_notice)
    level = logger.level
    # The root logger's handlers decide what reaches the terminal; this logger only has
    # to let INFO through.
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
