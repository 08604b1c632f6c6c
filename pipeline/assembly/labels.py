"""Label part of the pipeline, once per task: data components and the overlap audit.

RunConfig and TaskConfig -> components. Pretraining waits for the audits and for the
comparison with the labels of the model in service, so this part comes before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent

from components.drift_check import DriftSettings
from components.examples import ExampleComponents, create_examples
from components.overlap_audit import create_overlap_audit
from components.shard_gen import Spans
from models.segment import encoder_starts
from pipeline.config import RunConfig, TaskConfig
from pipeline.published_encoder import seen_pairs


@dataclass(frozen=True, kw_only=True)
class LabelComponents:
    """Components of one task's labels; no training may start before `gates` passed.

    Without pairs to compare the labels with, there is neither audit nor `gate`.
    """

    data: ExampleComponents
    audit: BaseComponent | None
    gate: BaseComponent | None

    @property
    def gates(self) -> list[BaseComponent]:
        """What must pass before a training starts."""
        return [self.data.drift_gate, *filter(None, (self.gate,))]

    def as_list(self) -> list[BaseComponent]:
        """Return all components in topological order."""
        return [*self.data.as_list(), *filter(None, (self.audit, self.gate))]


def create_labels(
    config: RunConfig,
    task: TaskConfig,
    pairs: ExampleComponents | None,
    since: str = "",
    spans: Spans | None = None,
) -> LabelComponents:
    """Return the components that read the labels of a task and audit them.

    Args:
        config: the run.
        task: one of its tasks.
        pairs: data components of the pairs, which the audit compares the labels with.
            None: the run has none. The audit then compares with the pairs of the
            published encoders that the task starts from, if they are at hand.
        since: what is in service of this task, by `labels.state_of`.
        spans: the spans of the task's data to read together; None = the newest.
    """
    drift = DriftSettings(
        served_dir=f"{config.serving_dir}/{task.name}", drift=config.drift, since=since
    )
    data = create_examples(config.task_dir(task), task.name, drift, spans, config.span)
    starts = encoder_starts(task.segment, None).values()
    seen = seen_pairs(starts, with_remote=config.encoder is not None).versions
    if pairs is None and not seen:
        return LabelComponents(data=data, audit=None, gate=None)
    audit, gate = create_overlap_audit(
        task.name, pairs=pairs, labels=data, buffer_m=config.pairs.split.buffer_m, seen=seen
    )
    return LabelComponents(data=data, audit=audit, gate=gate)
