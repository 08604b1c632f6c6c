"""Data components: shards -> Examples, statistics, schema, anomalies and manifest.

`create_examples` makes one set for the pairs and one for each task. All other
components of the pipeline read their outputs. No training on the data may start before
`drift_gate` has passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tfx.components.example_validator.component import ExampleValidator
from tfx.components.schema_gen.component import SchemaGen
from tfx.dsl.components.base.base_component import BaseComponent

from components.data_manifest import DataManifest
from components.drift_check import DriftSettings, Inspected, create_drift_check
from components.shard_gen import ShardExampleGen, Spans
from components.shard_readers import ShardStatisticsGen, statistics_options


@dataclass(frozen=True, kw_only=True)
class ExampleComponents:
    """The data components of one data set, in topological order.

    Attributes:
        data_root: folder that holds `span-N/version-M`.
        examples: ImportExampleGen over the newest version of the newest span, or of
            each span of a window; they must be complete.
        statistics: TFDV statistics of every split.
        schema: schema inferred from the train split.
        manifest: the manifest of the version or window that `examples` read.
        drift_check: comparison with the data of the model in service; its `reference`
            is kept with the model that is trained on these data.
        validator: anomalies of all splits against the schema of the model in service,
            or against `schema` without one.
        drift_gate: fails when the data are refused.
    """

    data_root: str

    examples: BaseComponent
    statistics: BaseComponent
    schema: BaseComponent
    manifest: BaseComponent
    drift_check: BaseComponent
    validator: BaseComponent
    drift_gate: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """Return all components, for TFX's `Pipeline`."""
        return [
            self.examples,
            self.statistics,
            self.schema,
            self.manifest,
            self.drift_check,
            self.validator,
            self.drift_gate,
        ]


def create_examples(
    data_root: str,
    name: str,
    drift: DriftSettings,
    spans: Spans | None = None,
    span: int | None = None,
) -> ExampleComponents:
    """Return the data components of one data set.

    Args:
        data_root: folder that holds `span-N/version-M`; may be an object store.
        name: suffix of the component ids, "pairs" or the task's name. Ids must be
            unique in a pipeline and have no dots, because Kubeflow makes workflow
            names of them.
        drift: how the data are compared with those of the model in service.
        spans: the spans to read together; None = the newest.
        span: number of the span to read, without `spans`; None = the newest.
    """
    examples = ShardExampleGen(data_root, spans, span).with_id(f"ImportExampleGen-{name}")
    statistics = ShardStatisticsGen(
        examples=examples.outputs["examples"],
        stats_options=statistics_options(),
    ).with_id(f"StatisticsGen-{name}")
    # The schema is inferred from train only, so a value that occurs only in eval or
    # test is reported as an anomaly.
    schema = SchemaGen(
        statistics=statistics.outputs["statistics"],
        infer_feature_shape=True,
        exclude_splits=["eval", "test"],
    ).with_id(f"SchemaGen-{name}")
    manifest = DataManifest(examples=examples.outputs["examples"], data_root=data_root).with_id(
        f"DataManifest-{name}"
    )
    inspected = Inspected(
        examples=examples, statistics=statistics, schema=schema, manifest=manifest
    )
    check, gate = create_drift_check(name, data_root, inspected, drift)
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=check.outputs["schema"]
    ).with_id(f"ExampleValidator-{name}")
    # The run may end at the gate; the anomalies must be known by then.
    gate.add_upstream_node(validator)
    return ExampleComponents(
        data_root=data_root,
        examples=examples,
        statistics=statistics,
        schema=schema,
        manifest=manifest,
        drift_check=check,
        validator=validator,
        drift_gate=gate,
    )
