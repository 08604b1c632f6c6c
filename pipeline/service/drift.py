"""Drift without a run: compare a span with the data of the models in service.

RunConfig and the number of a span -> one report for each data set. The figures are
those that `DriftCheck` computes in a run, also those of TensorFlow Data Validation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions

from beam_jobs.build.verify import verify
from beam_jobs.contracts import layout
from beam_jobs.contracts.locations import Location
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.object_store import beam_plugins
from beam_jobs.contracts.published import ENCODER_NAME
from beam_jobs.contracts.records import WATCHED_FEATURES
from beam_jobs.contracts.shards import named_damage
from beam_jobs.errors import DataError
from beam_jobs.runner import local_arguments
from components.drift_check import NewData, judge
from components.watched_statistics import schema_text
from models.drift.patch_columns import read_columns
from models.drift.reference import DataReference, find_served
from models.drift.report import DriftReport
from models.drift.summary import summarize
from pipeline.config import RunConfig

Stage = Callable[[str], AbstractContextManager[Any]]


def check_span(config: RunConfig, span: int, stage: Stage) -> list[DriftReport]:
    """Return the reports about the newest version of a span, one for each data set.

    Args:
        config: the run.
        span: number of the span.
        stage: context manager around each named stage.

    Raises:
        DataError: no data set of the run has the span, or a version is damaged.
    """
    versions = dict(_versions(config, span))
    if not versions:
        raise DataError(
            f"--span {span}: no data set of {config.root}/data has it; built are "
            f"{', '.join(_built(config)) or 'none'}: build it by build-pairs, or by run",
            "no_version",
        )
    reports = []
    for name, version in versions.items():
        model = ENCODER_NAME if name == _PAIRS else name
        with stage(f"compare {name} ({version})"):
            served = find_served(f"{config.serving_dir}/{model}")
            reports.append(judge(read_version(name, version, config), served, config.drift))
    return reports


_PAIRS = "pairs"


def _folders(config: RunConfig) -> dict[str, str]:
    """Return data set -> folder of its spans."""
    pairs = {_PAIRS: config.pairs_dir} if config.needs_pairs else {}
    return {**pairs, **{task.name: config.task_dir(task) for task in config.tasks}}


def _versions(config: RunConfig, span: int) -> Iterator[tuple[str, Location]]:
    for name, folder in _folders(config).items():
        found = [version for number, version in layout.list_versions(folder) if number == span]
        if found:
            yield name, layout.version_dir(folder, span, found[-1])


def _built(config: RunConfig) -> list[str]:
    return [
        f"{name} {span}.{version}"
        for name, folder in _folders(config).items()
        for span, version in layout.list_versions(folder)
    ]


def read_version(name: str, version: Location, config: RunConfig) -> NewData:
    """Return the figures of a version, as `DriftCheck` computes them.

    Args:
        name: "pairs" or the task's name.
        version: directory of the version.
        config: the run.

    Raises:
        DataError: the version is damaged.
    """
    manifest = verify(version, with_hashes=False)
    train, judged = (
        [str(path) for path in layout.shard_paths(version, split)] for split in ("train", "eval")
    )
    statistics = {
        split: _statistics(version, split, manifest, config) for split in ("train", "eval")
    }
    return NewData(
        name=name,
        manifest=manifest,
        eval_files=judged,
        reference=DataReference(
            summary=summarize(manifest, read_columns(manifest, train, config.drift.num_patches)),
            statistics=statistics["train"].SerializeToString(),
            schema=schema_text(tfdv.infer_schema(statistics["train"], infer_feature_shape=True)),
        ),
        eval_statistics=statistics["eval"].SerializeToString(),
    )


def _statistics(version: Location, split: str, manifest: Manifest, config: RunConfig) -> Any:
    """Return TFDV's statistics of one split, as StatisticsGen computes them."""
    options = PipelineOptions(
        [*local_arguments(config.num_beam_workers), *beam_plugins(config.root)]
    )
    files = [str(path) for path in layout.shard_paths(version, split)]
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch, named_damage(files, manifest):
        return tfdv.generate_statistics_from_tfrecord(
            f"{version}/{split}/{layout.SHARD_GLOB}",
            f"{scratch}/statistics",
            tfdv.StatsOptions(feature_allowlist=list(WATCHED_FEATURES)),
            options,
        )
