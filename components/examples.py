"""Data components: shards -> Examples, statistics, schema, anomalies and manifest.

`create_examples` makes one set for the pairs and one for each task. All other
components of the pipeline read their outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow_data_validation as tfdv
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.schema_gen.component import SchemaGen
from tfx.dsl.components.base.base_component import BaseComponent

from beam_jobs.contracts.records import WATCHED_FEATURES
from components.data_manifest import DataManifest
from components.shard_gen import ShardExampleGen, Spans
from components.shard_readers import ShardStatisticsGen


@dataclass(frozen=True, kw_only=True)
class ExampleComponents:
    """The data components of one data set, in topological order.

    Attributes:
        data_root: folder that holds `span-N/version-M`.
        examples: ImportExampleGen over the newest version of the newest span, or of
            each span of a window; they must be complete.
        statistics: TFDV statistics of every split.
        schema: schema inferred from the train split.
        validator: anomalies of the other splits against that schema.
        manifest: the manifest of the version or window that `examples` read.
    """

    data_root: str

    examples: BaseComponent
    statistics: BaseComponent
    schema: BaseComponent
    validator: BaseComponent
    manifest: BaseComponent

    def as_list(self) -> list[BaseComponent]:
        """Return all components, for TFX's `Pipeline`."""
        return [self.examples, self.statistics, self.schema, self.validator, self.manifest]


def create_examples(data_root: str, name: str, spans: Spans | None = None) -> ExampleComponents:
    """Return the data components of one data set.

    Args:
        data_root: folder that holds `span-N/version-M`; may be an object store.
        name: suffix of the component ids, "pairs" or the task's name. Ids must be
            unique in a pipeline and have no dots, because Kubeflow makes workflow
            names of them.
        spans: the spans to read together; None = the newest.
    """
    examples = ShardExampleGen(data_root, spans).with_id(f"ImportExampleGen-{name}")
    statistics = ShardStatisticsGen(
        examples=examples.outputs["examples"],
        stats_options=tfdv.StatsOptions(feature_allowlist=list(WATCHED_FEATURES)),
    ).with_id(f"StatisticsGen-{name}")
    # The schema is inferred from train only, so a value that occurs only in eval or
    # test is reported as an anomaly.
    schema = SchemaGen(
        statistics=statistics.outputs["statistics"],
        infer_feature_shape=True,
        exclude_splits=["eval", "test"],
    ).with_id(f"SchemaGen-{name}")
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    ).with_id(f"ExampleValidator-{name}")
    manifest = DataManifest(examples=examples.outputs["examples"], data_root=data_root).with_id(
        f"DataManifest-{name}"
    )
    return ExampleComponents(
        data_root=data_root,
        examples=examples,
        statistics=statistics,
        schema=schema,
        validator=validator,
        manifest=manifest,
    )
