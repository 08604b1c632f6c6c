"""How a student learns from a teacher on unlabeled pairs.

Input: a task's YAML, as `TaskConfig.distill`. Output: checked frozen dataclasses. Used
by `train.py` and by the run config.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from models.config import OptimizerConfig
from models.segment_config import SegmentConfig
from models.value_checks import check_positive


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What is particular to distillation; all else of the student is its SegmentConfig's, from which it goes on after it.

    Attributes:
        teacher: name of the task whose segmenter labels the pairs, once it is blessed.
        num_steps: updates of the student's weights.
        global_batch_size: pairs per step over all replicas.
        optimizer: rate, decay, warm-up.
        temperature: divides the logits of both before their probabilities are compared;
            above 1 the student also learns how likely the teacher holds the other
            classes. Default 1; origin: this project.
        edge_weight: what a pixel near an edge of the teacher's label map counts; one
            elsewhere counts 1. 1 = no difference. Default 4; origin: this project.
        edge_radius_px: how near. Default 2; origin: this project.
    """

    teacher: str
    num_steps: int
    global_batch_size: int = 32
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    temperature: float = 1.0
    edge_weight: float = 4.0
    edge_radius_px: int = 2

    def __post_init__(self) -> None:
        for key in ("num_steps", "global_batch_size", "edge_radius_px"):
            check_positive(key, getattr(self, key))
        for key in ("temperature", "edge_weight"):
            if not 0.0 < getattr(self, key) < math.inf:
                raise ValueError(f"{key} must be above 0 and finite, got {getattr(self, key)}")

    def check_teacher(self, student: SegmentConfig, teacher: SegmentConfig) -> None:
        """Refuses a teacher of other classes, and one that sees no more than the student.

        Raises:
            ValueError: one line with what both have.
        """
        if teacher.label_schema != student.label_schema:
            raise ValueError(
                f"distill.teacher must have the student's label_schema {student.label_schema!r}, "
                f"got {self.teacher!r} with {teacher.label_schema!r}"
            )
        if set(teacher.sensors) <= set(student.sensors):
            raise ValueError(
                f"distill.teacher must see a sensor that the student, of {list(student.sensors)}, lacks, "
                f"got {self.teacher!r} of {list(teacher.sensors)}"
            )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A whole distillation: what the student is, and how it is taught."""

    segment: SegmentConfig
    distill: DistillConfig
