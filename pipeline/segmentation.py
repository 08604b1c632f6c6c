"""Segmentation part of the pipeline, once per task: labels -> data components, audit, Trainer, Evaluator, Pusher.

Pure: the same configs give the same components. Called by `full.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from beam_jobs.contracts.labels import get_schema
from components.evaluation import create_eval_config, create_evaluator
from components.examples import ExampleComponents, create_examples
from components.overlap_audit import create_overlap_audit
from components.publishing import create_pusher
from components.segment_trainer import create_segment_trainer
from pipeline.config import RunConfig, TaskConfig
from pipeline.pretraining import PretrainingComponents


@dataclass(frozen=True, kw_only=True)
class SegmentationComponents:
    """Components of one task; nothing may train before `gate` has passed."""

    data: ExampleComponents
    audit: BaseComponent
    gate: BaseComponent
    trainer: BaseComponent
    evaluator: BaseComponent
    pusher: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """All of them, in topological order."""
        return [*self.data.as_list(), self.audit, self.gate, self.trainer, self.evaluator, self.pusher]


def create_segmentation(
    config: RunConfig, task: TaskConfig, pretraining: PretrainingComponents
) -> SegmentationComponents:
    """Components that turn the labels of `task` into a published segmenter.

    Args:
        config: the run.
        task: one of its tasks.
        pretraining: its encoder is what the segmenter starts from, its pairs are what the labels are audited against.
    """
    data = create_examples(config.task_dir(task), task.name)
    audit, gate = create_overlap_audit(
        task.name, pretraining.data, config.pairs_dir, data, config.task_dir(task), config.pairs.split.buffer_m
    )
    encoder = pretraining.trainer if task.segment.needs_pretraining else None
    trainer = create_segment_trainer(task.name, task.segment, data, encoder, config.checkpoints_dir)
    trainer.add_upstream_node(gate)
    eval_config = create_eval_config(get_schema(task.label.schema), task.min_mean_iou, task.min_iou)
    evaluator = create_evaluator(task.name, data.examples, trainer, eval_config)
    pusher = create_pusher(task.name, trainer, config.serving_dir, evaluator)
    return SegmentationComponents(
        data=data, audit=audit, gate=gate, trainer=trainer, evaluator=evaluator, pusher=pusher
    )
