"""Distillation part of the pipeline: a DistillTrainer for each task that has a teacher.

RunConfig and TaskConfig -> component. The task's segment Trainer starts from its model.
"""

from __future__ import annotations

from collections.abc import Mapping

from tfx.dsl.components.base.base_component import BaseComponent

from components.examples import ExampleComponents
from components.trainers.distill import Teacher, create_distill_trainer
from models.distillation.config import StudentConfig
from pipeline.assembly.labels import LabelComponents
from pipeline.assembly.pretraining import PretrainingComponents
from pipeline.assembly.segmentation import SegmentationComponents
from pipeline.config import RunConfig, TaskConfig


def create_distillation(
    config: RunConfig,
    task: TaskConfig,
    pairs: ExampleComponents | None,
    labels: LabelComponents,
    pretraining: PretrainingComponents | None,
    segmentations: Mapping[str, SegmentationComponents],
) -> BaseComponent | None:
    """Return the DistillTrainer of a task's student; None: the task has no teacher.

    Args:
        config: the run.
        task: one of its tasks.
        pairs: data components of the pairs; None only when no task has a teacher.
        labels: components of the task's labels; poisoned ones must stop the run first.
        pretraining: the student starts from its encoder, once that is blessed. None:
            the run has no pretraining, and the student's config names its encoders.
        segmentations: those of the tasks before this one, by name; the teacher's is
            among them.
    """
    if task.distill is None or pairs is None:
        return None
    teacher = segmentations[task.distill.teacher]
    student = create_distill_trainer(
        task.name,
        StudentConfig(segment=task.segment, distill=task.distill),
        pairs=pairs,
        teacher=Teacher(trainer=teacher.trainer, evaluator=teacher.evaluator),
        encoder=pretraining.trainer if pretraining and task.segment.needs_pretraining else None,
        checkpoints_dir=config.checkpoints_dir,
    )
    for gate in (pairs.drift_gate, *labels.gates):
        student.add_upstream_node(gate)
    if pretraining is not None:
        student.add_upstream_node(pretraining.gate)
    # The run may end at a refused teacher; the teacher's Pusher must have run by then,
    # so that the report can tell what was published.
    student.add_upstream_node(teacher.pusher)
    return student
