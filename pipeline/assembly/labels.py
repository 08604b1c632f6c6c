"""Label part of the pipeline, once per task: data components and the overlap audit.

RunConfig and TaskConfig -> components. Pretraining waits for the audits, so this part
comes before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from components.examples import ExampleComponents, create_examples
from components.overlap_audit import create_overlap_audit
from pipeline.config import RunConfig, TaskConfig


@dataclass(frozen=True, kw_only=True)
class LabelComponents:
    """Components of one task's labels; no training may start before `gate` passed."""

    data: ExampleComponents
    audit: BaseComponent
    gate: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """Return all components in topological order."""
        return [*self.data.as_list(), self.audit, self.gate]


def create_labels(config: RunConfig, task: TaskConfig, pairs: ExampleComponents) -> LabelComponents:
    """Return the components that read the labels of a task and audit them.

    Args:
        config: the run.
        task: one of its tasks.
        pairs: data components of the pairs, which the audit compares the labels with.
    """
    data = create_examples(config.task_dir(task), task.name)
    audit, gate = create_overlap_audit(
        task.name, pairs=pairs, labels=data, buffer_m=config.pairs.split.buffer_m
    )
    return LabelComponents(data=data, audit=audit, gate=gate)
