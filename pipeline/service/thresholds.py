"""Thresholds: a first model needs some, because there is none to compare it with.

RunConfig and its serving folder -> nothing, or an error of one line.
"""

from __future__ import annotations

from beam_jobs.contracts import published
from beam_jobs.contracts.settings import SettingsError
from pipeline.config import RunConfig


def check_thresholds(config: RunConfig) -> None:
    """Refuse a task whose first model nothing would judge, before it is trained.

    Raises:
        SettingsError: the task has no threshold, and no model of it is in service.
    """
    for position, task in enumerate(config.tasks):
        served_dir = f"{config.serving_dir}/{task.name}"
        if not task.has_thresholds and published.in_service(served_dir) is None:
            raise SettingsError(
                f"tasks[{position}].min_mean_iou: must be above 0, or min_iou of some class, for "
                f"the first model of {task.name}: {served_dir} holds none to compare it with, got "
                f"{task.min_mean_iou:g}"
            )
