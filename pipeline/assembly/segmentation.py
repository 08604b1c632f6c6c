"""Segmentation part of the pipeline, once per task: from Trainer to Pusher.

RunConfig and TaskConfig -> components that publish a segmenter.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from components.canary import create_canary
from components.champion_gate import GateSettings, create_champion_gate
from components.evaluation import create_eval_config, create_evaluator
from components.publishing import create_pusher
from components.scorer import create_scorer
from components.trainers.segment import create_segment_trainer
from pipeline.assembly.labels import LabelComponents
from pipeline.assembly.pretraining import PretrainingComponents
from pipeline.config import RunConfig, TaskConfig


@dataclass(frozen=True, kw_only=True)
class SegmentationComponents:
    """Components of one task's segmenter."""

    trainer: BaseComponent
    scorer: BaseComponent
    evaluator: BaseComponent
    gate: BaseComponent
    canary: BaseComponent
    pusher: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """Return all components in topological order."""
        return [
            self.trainer,
            self.scorer,
            self.evaluator,
            self.gate,
            self.canary,
            self.pusher,
        ]


def create_segmentation(
    config: RunConfig,
    task: TaskConfig,
    labels: LabelComponents,
    pretraining: PretrainingComponents | None,
    student: BaseComponent | None = None,
    since: str = "",
) -> SegmentationComponents:
    """Return the components that turn a task's labels into a published segmenter.

    Args:
        config: the run.
        task: one of its tasks.
        labels: the task's labels.
        pretraining: the segmenter starts from its encoder, once that is blessed. None:
            the run has no pretraining, and the task's config names its encoders.
        student: DistillTrainer of the task; the segmenter starts from its model
            instead. None: the task has no teacher.
        since: what is in service of this task, by `labels.state_of`.
    """
    encoder = pretraining.trainer if pretraining and task.segment.needs_pretraining else None
    trainer = create_segment_trainer(
        task.name,
        task.segment,
        data=labels.data,
        start=student or encoder,
        checkpoints_dir=config.checkpoints_dir,
    )
    # Segmenters that do not start from the encoder wait for its gate too: a refused
    # encoder usually means bad data, so it ends the run.
    for gate in (*labels.gates, *([pretraining.gate] if pretraining else [])):
        trainer.add_upstream_node(gate)
    scorer = create_scorer(task.name, trainer, labels.data, task.segment.global_batch_size)
    eval_config = create_eval_config(
        task.label.label_schema, task.min_mean_iou, task.min_iou, task.label.needed_classes
    )
    evaluator = create_evaluator(task.name, labels.data.examples, trainer, eval_config)
    gate_settings = GateSettings(
        task=task.name,
        run=config.name,
        serving_dir=config.serving_dir,
        gate=task.gate,
        has_thresholds=task.has_thresholds,
        batch_size=task.segment.global_batch_size,
        since=since,
    )
    gate = create_champion_gate(gate_settings, labels.data, trainer, scorer, evaluator)
    canary = create_canary(task.name, trainer, config.canary)
    pusher = create_pusher(task.name, trainer, config.serving_dir, gate, canary)
    return SegmentationComponents(
        trainer=trainer,
        scorer=scorer,
        evaluator=evaluator,
        gate=gate,
        canary=canary,
        pusher=pusher,
    )
