"""Config of distillation: how a student learns from a teacher on unlabeled pairs.

Input: a task's YAML, as `TaskConfig.distill`. Output: checked frozen dataclasses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from beam_jobs.contracts.labels import LabelSchema
from models.config import OptimizerConfig
from models.segment_config import SegmentConfig
from models.value_checks import check_positive


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """What only distillation needs; SegmentConfig describes the student itself.

    Attributes:
        teacher: name of the task whose segmenter labels the pairs, if it is blessed.
        num_steps: updates of the student's weights.
        global_batch_size: pairs per step over all replicas.
        optimizer: rate, decay, warm-up.
        temperature: divides the logits of teacher and student before their
            probabilities are compared. Above 1 the student also learns how likely the
            other classes are for the teacher. Default 1; origin: this project.
        edge_weight: weight of a pixel near an edge of the teacher's label map; other
            pixels have weight 1. Default 4; origin: this project.
        edge_radius_px: largest distance to the edge, in pixels. Default 2; origin: this
            project.
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
        """Refuse a teacher of other classes, or with no sensor that the student lacks.

        Raises:
            ValueError: one line with the settings of both.
        """
        if teacher.label_schema != student.label_schema:
            raise ValueError(
                f"distill.teacher must have the student's label_schema {student.label_schema!r}, "
                f"got {self.teacher!r} with {teacher.label_schema!r}"
            )
        if teacher.schema != student.schema:
            raise ValueError(
                "distill.teacher must have the student's label_classes "
                f"{_describe(student.schema)}, "
                f"got {self.teacher!r} with {_describe(teacher.schema)}"
            )
        if set(teacher.sensors) <= set(student.sensors):
            raise ValueError(
                "distill.teacher must see a sensor that the student, of "
                f"{list(student.sensors)}, lacks, got {self.teacher!r} of {list(teacher.sensors)}"
            )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A whole distillation: the student's own config, and how it is taught."""

    segment: SegmentConfig
    distill: DistillConfig


def _describe(schema: LabelSchema) -> str:
    return ", ".join(f"{entry.id} {entry.name} {entry.color}" for entry in schema.entries)
