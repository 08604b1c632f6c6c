"""Segmentation part of the pipeline, once per task: labels -> data components, Trainer, Evaluator, Pusher.

Pure: the same configs give the same components. Called by `full.py`.
"""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent

from beam_jobs.contracts.labels import get_schema
from components.evaluation import create_eval_config, create_evaluator
from components.examples import create_examples
from components.publishing import create_pusher
from components.segment_trainer import create_segment_trainer
from pipeline.config import RunConfig, TaskConfig


def create_segmentation(config: RunConfig, task: TaskConfig, encoder: BaseComponent) -> list[BaseComponent]:
    """Components that turn the labels of `task` into a published segmenter, in topological order.

    Args:
        config: the run.
        task: one of its tasks.
        encoder: the pretrain Trainer, whose encoder the segmenter starts from.
    """
    data = create_examples(config.task_dir(task), task.name)
    trainer = create_segment_trainer(task.name, task.segment, data, encoder)
    eval_config = create_eval_config(get_schema(task.label.schema), task.min_mean_iou, task.min_iou)
    evaluator = create_evaluator(task.name, data.examples, trainer, eval_config)
    pusher = create_pusher(task.name, trainer, config.serving_dir, evaluator)
    return [*data.as_list(), trainer, evaluator, pusher]
