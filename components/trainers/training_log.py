"""Training progress as log records with fields.

TFX hands no callback to `run_fn`. A log record reaches both the local runner's progress
bar and the log of a Kubeflow pod.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

LOGGER_NAME = "terrapair.training"


def log_steps(component: str) -> Callable[[int, int, Mapping[str, Any]], None]:
    """Return a callback `on_step(step, num_steps, values)` that logs each step.

    Args:
        component: what trains, "pretrain" or the task's name.
    """
    logger = logging.getLogger(LOGGER_NAME)

    def on_step(step: int, num_steps: int, values: Mapping[str, Any]) -> None:
        numbers = {name: float(value) for name, value in values.items()}
        text = " ".join(f"{name}={value:.4f}" for name, value in numbers.items())
        extra = {"component": component, "step": step, "num_steps": num_steps, "values": numbers}
        logger.info("%s step %d/%d %s", component, step, num_steps, text, extra=extra)

    return on_step
