"""Preconditions: what must be right before data are built and models are trained.

RunConfig and its serving folder -> nothing, or an error of one line. The push would
notice it, too, but only after hours of training.
"""

from __future__ import annotations

from beam_jobs.contracts import published
from beam_jobs.contracts.published import ENCODER_NAME
from beam_jobs.contracts.settings import SettingsError
from models.publishing import store
from pipeline.config import RunConfig


def check_preconditions(config: RunConfig) -> None:
    """Check that the models of a run can be judged and published.

    Raises:
        SettingsError: see `check_thresholds`.
        UnwritableError: a folder of published models cannot be written.
    """
    check_thresholds(config)
    for folder in _model_dirs(config):
        store.check_writable(folder)


def remove_unfinished(config: RunConfig) -> None:
    """Remove what killed pushes left of the models of a run.

    The folders of the run must be held (`root.hold`).
    """
    for folder in _model_dirs(config):
        store.remove_unfinished(folder)


def _model_dirs(config: RunConfig) -> list[str]:
    """Return the folders of the models that a run publishes."""
    encoder = [ENCODER_NAME] if config.pretrain is not None else []
    names = (*encoder, *(task.name for task in config.tasks))
    return [f"{config.serving_dir}/{name}" for name in names]


def check_thresholds(config: RunConfig) -> None:
    """Refuse a task whose first model nothing would judge.

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
