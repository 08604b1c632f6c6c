"""Pretraining part of the pipeline: pairs -> pretrain Trainer, EncoderProbe with its gate, Pusher of the encoder.

Pure: the same RunConfig gives the same components. Called by `full.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from components.encoder_probe import create_encoder_probe
from components.examples import ExampleComponents
from components.pretrain_trainer import create_pretrain_trainer
from components.publishing import ENCODER_NAME, create_pusher
from pipeline.assembly.labels import LabelComponents
from pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PretrainingComponents:
    """Components of pretraining; no segmenter may start from the encoder of `trainer` before `gate` has passed."""

    trainer: BaseComponent
    probe: BaseComponent
    gate: BaseComponent
    pusher: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """All of them, in topological order."""
        return [self.trainer, self.probe, self.pusher, self.gate]


def create_pretraining(
    config: RunConfig, pairs: ExampleComponents, labels: Mapping[str, LabelComponents]
) -> PretrainingComponents:
    """Components that turn pairs into a published encoder.

    Args:
        config: the run.
        pairs: data components of the pairs.
        labels: those of the labels by task: pretraining waits for their audits, and the
            probe reads one of them.
    """
    trainer = create_pretrain_trainer(
        config.pretrain,
        pairs,
        config.checkpoints_dir,
        config.serving_dir if config.warm_start else "",
    )
    for task in labels.values():
        # Before pretraining already: an overlap found after it would have cost its
        # hours.
        trainer.add_upstream_node(task.gate)
    task_name = config.probe_task
    probe, gate = create_encoder_probe(
        config.probe,
        trainer,
        pairs,
        config.serving_dir,
        task_name,
        labels[task_name].data if task_name else None,
    )
    pusher = create_pusher(ENCODER_NAME, trainer, config.serving_dir, probe)
    # So that a run that ends at the gate has said what it published: nothing.
    gate.add_upstream_node(pusher)
    return PretrainingComponents(trainer=trainer, probe=probe, gate=gate, pusher=pusher)
