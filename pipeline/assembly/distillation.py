"""Distillation part of the pipeline: a DistillTrainer for each task that has a teacher.

Pure: the same configs give the same components. Called by `full.py`, before the task's
own segmentation.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfx.dsl.components.base.base_component import BaseComponent

from components.distill_trainer import create_distill_trainer
from components.examples import ExampleComponents
from models.distillation.config import StudentConfig
from pipeline.assembly.pretraining import PretrainingComponents
from pipeline.assembly.segmentation import SegmentationComponents
from pipeline.config import RunConfig, TaskConfig


def create_distillation(
    config: RunConfig,
    task: TaskConfig,
    pairs: ExampleComponents,
    pretraining: PretrainingComponents,
    segmentations: Mapping[str, SegmentationComponents],
) -> BaseComponent | None:
    """What makes the student of `task` from pairs and teacher; None when it has no teacher.

    Args:
        config: the run.
        task: one of its tasks.
        pairs: data components of the pairs.
        pretraining: its encoder is what the student begins with, once it is blessed.
        segmentations: those of the tasks before, its teacher's among them.
    """
    if task.distill is None:
        return None
    teacher = segmentations[task.distill.teacher]
    student = create_distill_trainer(
        task.name,
        StudentConfig(segment=task.segment, distill=task.distill),
        pairs,
        teacher.trainer,
        teacher.evaluator,
        pretraining.trainer if task.segment.needs_pretraining else None,
        config.checkpoints_dir,
    )
    student.add_upstream_node(pretraining.gate)
    # So that a run that ends at a refused teacher has said what it published.
    student.add_upstream_node(teacher.pusher)
    return student
