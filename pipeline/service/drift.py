"""Drift without a run: compare a span with the data of the models in service.

RunConfig and the number of a span -> one report for each data set, or the newest spans
that `retrain` must train on although no scene is new. The figures are those that
`DriftCheck` computes in a run, also those of TensorFlow Data Validation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import tensorflow_data_validation as tfdv

from beam_jobs.build.verify import verify
from beam_jobs.contracts import layout, published, windows
from beam_jobs.contracts import manifest as manifest_lib
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.manifest import Manifest
from beam_jobs.contracts.object_store import beam_plugins
from beam_jobs.contracts.published import ENCODER_NAME
from beam_jobs.contracts.shards import named_damage
from beam_jobs.errors import DataError
from beam_jobs.runner import JobOptions, local_arguments
from components.drift_check import NewData, judge
from components.shard_readers import statistics_options
from components.watched_statistics import schema_text
from models.drift.patch_columns import read_columns
from models.drift.reference import DataReference, find_served
from models.drift.report import DriftReport
from models.drift.summary import summarize
from models.publishing import store
from pipeline.config import RunConfig
from pipeline.data_build import newest_trained
from pipeline.service.attempts import Data

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
        with stage(f"compare {name} ({version})"):
            served = find_served(f"{config.serving_dir}/{_model_of(name)}")
            reports.append(judge(read_version(name, version, config), served, config.drift))
    return reports


_PAIRS = "pairs"


@dataclass(frozen=True, kw_only=True)
class Drifted:
    """A data set that must be trained on, although no scene is new.

    Attributes:
        report: about its newest span.
        limit: `drift.retrain_score`.
    """

    report: DriftReport
    limit: float

    @property
    def version(self) -> str:
        """Span and version as "3.1"."""
        return f"{self.report.span}.{self.report.version}"

    @property
    def sentence(self) -> str:
        """Why a training starts."""
        why = {
            "passed": f"it drifted: score {self.report.score:.2f}, a training starts at "
            f"{self.limit:g} (drift.retrain_score)",
            "accepted": "drift.accept_spans names it",
        }
        return (
            f"{self.report.data}: no scene is new, but no published model was trained on "
            f"{self.version}, and {why.get(self.report.outcome, 'it was never judged')}"
        )


def find_drifted(config: RunConfig, tried: Collection[Data], stage: Stage) -> list[Drifted]:
    """Return the data sets that must be trained on, although no scene is new.

    Only the newest span counts, if no published version was trained on it: a gate
    refused that model, a person built the span, or accepted one that was set aside. A
    span that the run's own check would refuse is returned, too, so that the run says
    so. What is set aside is not.

    Args:
        config: the run.
        tried: data that need no further training; see `attempts.tried`.
        stage: context manager around each named stage.

    Raises:
        DataError: a version is damaged.
        DamagedFileError: the card of a published version is damaged.
    """
    limit = config.drift.retrain_score
    if limit is None:
        return []
    found = []
    for name, newest in newest_trained(config).items():
        model_dir = f"{config.serving_dir}/{_model_of(name)}"
        served = find_served(model_dir)
        if served is None or (name, "{}.{}".format(*newest)) in tried:
            continue
        version = layout.version_dir(_folders(config)[name], *newest)
        if manifest_lib.read(version).sha256 in _trained_on(model_dir):
            continue
        with stage(f"compare {name} ({version})"):
            report = judge(read_version(name, version, config), served, config.drift)
        if is_due(report, limit):
            found.append(Drifted(report=report, limit=limit))
    return found


def is_due(report: DriftReport, limit: float) -> bool:
    """Return whether a training must start for what a report says.

    Args:
        report: about a span that no published model knows.
        limit: score from which it must.
    """
    if report.outcome == "refused":
        # Without a span to set aside, the settings are at fault: no run can mend that.
        return bool(report.refused_spans)
    return report.outcome == "accepted" or (report.outcome == "passed" and report.score >= limit)


def _trained_on(model_dir: str) -> set[str]:
    """Return the hashes of the data of all published versions, in service or not.

    So a rollback starts no training: its span was trained on, and a person decided.
    """
    base = locate(model_dir)
    found = [*published.versions(base), *published.versions(base / store.WITHDRAWN)]
    cards = [published.read_card(str(version)) for version in found]
    return {entry.sha256 for card in cards for entry in windows.of_card(card)}


def _model_of(name: str) -> str:
    """Return the model that is trained on a data set."""
    return ENCODER_NAME if name == _PAIRS else name


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
    options = JobOptions([*local_arguments(config.num_beam_workers), *beam_plugins(config.root)])
    files = [str(path) for path in layout.shard_paths(version, split)]
    with tempfile.TemporaryDirectory(prefix="terrapair-") as scratch, named_damage(files, manifest):
        return tfdv.generate_statistics_from_tfrecord(
            f"{version}/{split}/{layout.SHARD_GLOB}",
            f"{scratch}/statistics",
            statistics_options(),
            options,
        )
