"""Pretraining part of the pipeline: pairs, Trainer, EncoderProbe with gate, and Pusher.

RunConfig -> components that read pairs, and components that publish an encoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from beam_jobs.contracts.published import ENCODER_NAME
from components.canary import create_canary
from components.drift_check import DriftSettings
from components.encoder_probe import PublishedBefore, create_encoder_probe
from components.examples import ExampleComponents, create_examples
from components.publishing import create_pusher
from components.shard_gen import Spans
from components.trainers.pretrain import create_pretrain_trainer
from pipeline.assembly.labels import LabelComponents
from pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class PretrainingComponents:
    """Components of pretraining.

    No segmenter may start from the encoder of `trainer` before `gate` has passed.
    """

    trainer: BaseComponent
    probe: BaseComponent
    gate: BaseComponent
    canary: BaseComponent
    pusher: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """Return all components in topological order."""
        return [self.trainer, self.probe, self.canary, self.pusher, self.gate]


def create_pairs(
    config: RunConfig, since: str = "", spans: Spans | None = None
) -> ExampleComponents | None:
    """Return the components that read the pairs; None: the run needs none.

    Args:
        config: the run.
        since: what is in service of the encoder, by `labels.state_of`.
        spans: the spans to read together; None = the newest.
    """
    if not config.needs_pairs:
        return None
    drift = DriftSettings(
        served_dir=f"{config.serving_dir}/{ENCODER_NAME}",
        drift=config.drift,
        since=since,
        followers=tuple(config.task_dir(task) for task in config.tasks),
    )
    return create_examples(config.pairs_dir, "pairs", drift, spans, config.span)


def create_pretraining(
    config: RunConfig,
    pairs: ExampleComponents | None,
    labels: Mapping[str, LabelComponents],
    since: str = "",
    restart: str = "",
) -> PretrainingComponents | None:
    """Return the components that turn pairs into a published encoder.

    Args:
        config: the run. Without `pretrain` the result is None.
        pairs: data components of the pairs; None only without `pretrain`.
        labels: components of the labels by task. Pretraining waits for their gates, and
            the probe reads the labels of one task.
        since: what is in service, by `labels.state_of`.
        restart: the attempt that drift of the newest data started, by
            `attempts.restart`. Only a warm start then makes another training.
    """
    if config.pretrain is None or pairs is None:
        return None
    trainer = create_pretrain_trainer(
        config.pretrain,
        pairs,
        checkpoints_dir=config.checkpoints_dir,
        published_dir=config.serving_dir if config.warm_start else "",
        restart=restart if config.warm_start else "",
    )
    # Pretraining takes hours: poisoned data and overlaps must be found before it.
    for gate in (pairs.drift_gate, *(gate for task in labels.values() for gate in task.gates)):
        trainer.add_upstream_node(gate)
    task_name = config.probe_task
    probe, gate = create_encoder_probe(
        dataclasses.replace(config.probe, task=task_name),
        trainer,
        pairs=pairs,
        published=PublishedBefore(
            serving_dir=config.serving_dir,
            run=config.name,
            since=since,
            num_kept=config.drift.num_embedded,
        ),
        labels=labels[task_name].data if task_name else None,
    )
    canary = create_canary(ENCODER_NAME, trainer, config.canary)
    pusher = create_pusher(ENCODER_NAME, trainer, config.serving_dir, probe, canary)
    # The run may end at the gate; the Pusher must have run by then, so that the report
    # can tell that nothing was published.
    gate.add_upstream_node(pusher)
    return PretrainingComponents(
        trainer=trainer, probe=probe, gate=gate, canary=canary, pusher=pusher
    )
