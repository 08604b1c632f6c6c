"""StatisticsGen and Evaluator that name the shard which they cannot read.

Both read Examples by Beam. Its error for a damaged file says neither which file it is
nor what to do. The executors here find the file and raise one line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import tensorflow_data_validation as tfdv
from tfx import types
from tfx.components.evaluator import executor as evaluator_executor
from tfx.components.evaluator.component import Evaluator
from tfx.components.statistics_gen import executor as statistics_executor
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import standard_component_specs

from beam_jobs.contracts.locations import locate
from beam_jobs.contracts.records import WATCHED_FEATURES
from beam_jobs.contracts.shards import named_damage
from beam_jobs.runner import JobOptions

Artifacts = dict[str, list[types.Artifact]]


def example_files(inputs: Artifacts) -> Iterator[str]:
    """Yield the shards of all splits of the Examples among a component's inputs."""
    for artifact in inputs.get(standard_component_specs.EXAMPLES_KEY, ()):
        for path in sorted(locate(artifact.uri).glob("Split-*/*.gz")):
            yield str(path)


def _naming_damage(work: Callable[..., None]) -> Callable[..., None]:
    """Return an executor's `Do` that raises DamagedShardError for a damaged shard."""

    @functools.wraps(work)
    def do(
        self: Any, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> None:
        with named_damage(lambda: example_files(input_dict)):
            work(self, input_dict, output_dict, exec_properties)

    return do


def statistics_options() -> tfdv.StatsOptions:
    """Return what TFDV computes of a split.

    Sketches count how often values of the text features occur. They are exact for up to
    16,384 different values, and spare a quarter of the CPU and a shuffle of all values.
    """
    return tfdv.StatsOptions(
        feature_allowlist=list(WATCHED_FEATURES), use_sketch_based_topk_uniques=True
    )


def make_beam_pipeline(executor: BaseBeamExecutor) -> beam.Pipeline:
    """Return a job with the options of an executor, in place of TFX's own method."""
    arguments = [str(one) for one in executor._beam_pipeline_args or ()]
    return beam.Pipeline(options=JobOptions(arguments))


class StatisticsExecutor(statistics_executor.Executor):
    """StatisticsGen's executor."""

    _make_beam_pipeline = make_beam_pipeline
    Do = _naming_damage(statistics_executor.Executor.Do)


class EvaluatorExecutor(evaluator_executor.Executor):
    """Evaluator's executor."""

    _make_beam_pipeline = make_beam_pipeline
    Do = _naming_damage(evaluator_executor.Executor.Do)


class ShardStatisticsGen(StatisticsGen):
    """StatisticsGen with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(StatisticsExecutor)


class ShardEvaluator(Evaluator):
    """Evaluator with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)
