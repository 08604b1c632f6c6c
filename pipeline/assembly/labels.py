"""Label part of the pipeline, once per task: data components and the audit of overlaps with the pairs.

Pure: the same configs give the same components. Called by `full.py`, before
pretraining, which needs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from components.examples import ExampleComponents, create_examples
from components.overlap_audit import create_overlap_audit
from pipeline.config import RunConfig, TaskConfig


@dataclass(frozen=True, kw_only=True)
class LabelComponents:
    """Components of one task's labels; nothing may train before `gate` has passed."""

    data: ExampleComponents
    audit: BaseComponent
    gate: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """All of them, in topological order."""
        return [*self.data.as_list(), self.audit, self.gate]


def create_labels(config: RunConfig, task: TaskConfig, pairs: ExampleComponents) -> LabelComponents:
    """Components that read the labels of `task` and audit them against `pairs`, what pretraining will see."""
    data = create_examples(config.task_dir(task), task.name)
    audit, gate = create_overlap_audit(
        task.name, pairs, config.pairs_dir, data, config.task_dir(task), config.pairs.split.buffer_m
    )
    return LabelComponents(data=data, audit=audit, gate=gate)
