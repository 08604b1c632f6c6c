"""Pretraining part of the pipeline: pairs -> data components, pretrain Trainer, Pusher of the encoder.

Pure: the same RunConfig gives the same components. Called by `full.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from components.examples import ExampleComponents, create_examples
from components.pretrain_trainer import create_pretrain_trainer
from components.publishing import create_pusher
from pipeline.config import RunConfig

ENCODER_NAME = "encoder"
"""Folder of the published encoder below the serving folder."""


@dataclass(frozen=True, kw_only=True)
class PretrainingComponents:
    """Components of pretraining; the segmentation part starts from `trainer`."""

    data: ExampleComponents
    trainer: BaseComponent
    pusher: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """All of them, in topological order."""
        return [*self.data.as_list(), self.trainer, self.pusher]


def create_pretraining(config: RunConfig) -> PretrainingComponents:
    """Components that turn the pairs of `config` into a published encoder."""
    data = create_examples(config.pairs_dir, "pairs")
    trainer = create_pretrain_trainer(config.pretrain, data, config.checkpoints_dir)
    pusher = create_pusher(ENCODER_NAME, trainer, config.serving_dir)
    return PretrainingComponents(data=data, trainer=trainer, pusher=pusher)
