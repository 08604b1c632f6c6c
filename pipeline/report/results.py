"""Results of a run, gathered from ML Metadata and from the run's artifacts.

RunConfig -> RunResults, which the report shows and the exit code follows from. All of
it comes from the artifacts that the run used, which need not be the newest on disk.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.utils import path_utils

from beam_jobs.contracts import layout, manifest, windows
from beam_jobs.contracts.fingerprint import tree_sha256
from beam_jobs.contracts.locations import Location, locate
from beam_jobs.contracts.published import ENCODER_NAME, read_card
from components import blessing
from components.artifacts import read_metrics
from components.canary import read_findings
from components.data_manifest import read_manifest
from components.drift_check import read_report as read_drift
from components.evaluation import NUM_PIXELS
from components.overlap_audit import read_report
from components.publishing import find_published
from components.scorer import scores_path
from models.drift.report import DriftReport
from models.encoder_probe.report import ProbeReport
from models.gate.verdict import Verdict
from models.published.canary import CanaryConfig, Findings, damage_of
from models.publishing.store import model_sha256
from models.segment import encoder_starts
from pipeline.config import RunConfig, TaskConfig
from pipeline.metadata_store import Place
from pipeline.published_encoder import seen_pairs
from pipeline.refused_spans import RefusedSpan, read_refused
from pipeline.report.run_record import RunRecord, read_last_run

OVERALL = "all"
"""Name of the slice that holds every patch."""
DISPLACED = (
    "this model is not in service: another one was published or rolled back to since; see "
    "`terrapair history`"
)
_ANOMALIES_FILE = "SchemaDiff.pb"


@dataclass(frozen=True, kw_only=True)
class ThresholdFailure:
    """A metric below its bound, so the model is not published.

    Attributes:
        metric: name of the metric.
        value: measured value; NaN = no test pixel to measure it on.
        lower_bound: least value that the config asks for.
    """

    metric: str
    value: float
    lower_bound: float

    @property
    def sentence(self) -> str:
        """Why the model is refused, as one sentence."""
        kind, _, class_name = self.metric.partition("/")
        if kind == NUM_PIXELS:
            return (
                f"the class {class_name} has no pixel in the test split, so the model was never "
                "tested on it; label some, split anew, or set label.required_classes"
            )
        measured = (
            "could not be measured (no test pixel)"
            if math.isnan(self.value)
            else f"is {self.value:.3f}"
        )
        return f"{self.metric} {measured}, the config asks for at least {self.lower_bound:.3f}"


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One trained model.

    Attributes:
        name: "encoder" or the task's name.
        saved_model: SavedModel of the Trainer.
        log_dir: folder of the TensorBoard events.
        training: final metrics of the training, on the eval split.
        health: results of the health checks of pretraining, as in the model card; empty
            for other models.
        canary: its findings; no faults = the model can be served.
        published: folder of the version in service, if it is this model, nothing
            refused it, and it can be loaded; else None.
        damage: why the version in service cannot be served any more, one sentence each.
    """

    name: str
    saved_model: Location
    log_dir: Location
    training: Mapping[str, float]
    health: Mapping[str, Any]
    canary: Findings
    published: Location | None
    damage: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Faults that the canary found; empty = the model can be served."""
        return self.canary.faults

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the model is not published, one sentence each; empty if it is."""
        return (*(f"the canary: {fault}" for fault in self.faults), *self.damage)


@dataclass(frozen=True, kw_only=True)
class TaskResult(ModelResult):
    """One segmenter.

    Attributes:
        test: slice -> metric -> value on the test split, as measured by the Evaluator.
        failures: bounds that were missed.
        verdict: of the gate, which compared the model with the one in service.
        test_scores: file with the counts of each test patch; None in runs of version
            0.1, which had no Scorer.
    """

    test: Mapping[str, Mapping[str, float]]
    failures: tuple[ThresholdFailure, ...]
    verdict: Verdict
    test_scores: Location | None

    @property
    def is_displaced(self) -> bool:
        """Whether the gate blessed the model, but another one is in service now."""
        is_refused = bool(self.faults or self.failures or not self.verdict.is_blessed)
        return self.published is None and not is_refused and not self.damage

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the model is not published, one sentence each; empty if it is."""
        refused = self.verdict.reasons if self.verdict.outcome == "refused" else ()
        missed = (failure.sentence for failure in self.failures)
        return (*super().refusals, *refused, *missed, *([DISPLACED] if self.is_displaced else []))


@dataclass(frozen=True, kw_only=True)
class DataResult:
    """One data set that the run used.

    Attributes:
        name: "pairs" or the task's name.
        version_dir: version directory that was read; of several spans, the newest.
        manifest: its manifest, or that of all spans that were read.
        anomalies: split -> lines "feature: description" of ExampleValidator.
        drift: comparison with the data of the model in service; None in runs of version
            0.1, which had no DriftCheck, and in runs that ended before it.
    """

    name: str
    version_dir: Location
    manifest: manifest.Manifest
    anomalies: Mapping[str, tuple[str, ...]]
    drift: DriftReport | None = None

    @property
    def versions(self) -> str:
        """The versions that were read, in a few words."""
        return windows.describe(windows.entries_of(self.manifest))

    def shard_paths(self, split: layout.Split) -> list[Location]:
        """Return the shards of a split that were read."""
        root = self.version_dir.parent.parent
        return windows.shard_paths(root, windows.entries_of(self.manifest), split)


@dataclass(frozen=True, kw_only=True)
class RunResults:
    """Everything that the report shows.

    Attributes:
        record: the components that ran.
        data: the pairs, if the run has any, then the data of each task.
        encoder: the pretrained encoder; None: the run starts from a published one, or
            its data were refused.
        probe: report of EncoderProbe; None like `encoder`.
        tasks: trained segmenters. Empty when data or the encoder were refused; when a
            teacher was refused, without the tasks that the run did not reach.
        audits: task -> verdict of its overlap audit, or why there is none.
        refused_teachers: tasks whose refusal ended the run.
        refused_spans: spans of the run's data sets that were set aside, also by earlier
            runs.
    """

    record: RunRecord
    data: tuple[DataResult, ...]
    encoder: ModelResult | None
    probe: ProbeReport | None
    tasks: tuple[TaskResult, ...]
    audits: Mapping[str, str]
    refused_teachers: tuple[str, ...] = ()
    refused_spans: tuple[RefusedSpan, ...] = ()

    @property
    def models(self) -> tuple[ModelResult, ...]:
        """The models that the run trained."""
        return (*([self.encoder] if self.encoder is not None else []), *self.tasks)

    @property
    def refused_data(self) -> tuple[DriftReport, ...]:
        """Reports of the data sets that were refused; then nothing was trained."""
        reports = (item.drift for item in self.data)
        return tuple(one for one in reports if one is not None and one.outcome == "refused")

    @property
    def is_refused(self) -> bool:
        """Whether a check refused the encoder; then no task was trained."""
        return self.probe is not None and bool(self.probe.refusals)

    @property
    def is_control(self) -> bool:
        """Whether the encoder is an untrained control, which is never published."""
        return self.probe is not None and self.probe.is_control

    @property
    def is_damaged(self) -> bool:
        """Whether a version in service cannot be loaded; then `run` exits with 3."""
        return any(model.damage for model in self.models)

    @property
    def is_published(self) -> bool:
        """Whether every model is in the serving folder; then `run` exits with 0.

        An untrained control does not belong there.
        """
        wanted = self.tasks if self.is_control and not self.is_refused else self.models
        return not self.refused_data and all(model.published is not None for model in wanted)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why models are not published, one sentence each with the model's name."""
        encoder = () if self.probe is None else self.probe.refusals
        return (
            *(f"{ENCODER_NAME}: {reason}" for reason in encoder),
            *(f"{model.name}: {reason}" for model in self.models for reason in model.refusals),
        )


def collect_results(config: RunConfig, place: Place, run_id: str = "") -> RunResults:
    """Return the results of the last run of `config`.

    Args:
        config: the run.
        place: where its metadata are.
        run_id: the run of this id instead; "" = the last.

    Raises:
        DataError: there was no run, or a component of the last run failed.
    """
    record = read_last_run(place, config.name, run_id)
    data = [_data(record, "pairs", config.pairs_dir)] if config.needs_pairs else []
    data += [_data(record, task.name, config.task_dir(task)) for task in config.tasks]
    encoder = probe = None
    is_poisoned = any(one.drift is not None and one.drift.outcome == "refused" for one in data)
    if config.pretrain is not None and not is_poisoned:
        encoder = _model(config, record, "Trainer-pretrain", ENCODER_NAME)
        probe = blessing.read_report(record.output("EncoderProbe", "report").uri)
        if probe.refusals:
            # An encoder in service that misses a threshold which was raised since.
            encoder = dataclasses.replace(encoder, published=None)
        encoder = loaded(encoder, config.canary)
    tasks = []
    may_train = not is_poisoned and (probe is None or not probe.refusals)
    refused = _refused_teachers(config, record) if may_train else ()
    for task in config.tasks if may_train else ():
        if refused and not record.is_complete(f"Pusher-{task.name}"):
            continue
        evaluation = record.output(f"Evaluator-{task.name}", "evaluation").uri
        model = _model(config, record, f"Trainer-{task.name}", task.name)
        verdict = blessing.read_verdict(record.output(f"ChampionGate-{task.name}", "verdict").uri)
        if verdict.outcome == "in_service":
            # It may be another model with the same answers.
            model = dataclasses.replace(model, published=_served(config, task.name))
        elif verdict.outcome == "refused":
            # A model in service that misses a threshold which was raised since.
            model = dataclasses.replace(model, published=None)
        tasks.append(
            TaskResult(
                **vars(loaded(model, config.canary)),
                test=read_slices(evaluation),
                failures=read_failures(evaluation),
                verdict=verdict,
                test_scores=_test_scores(record, task.name),
            )
        )
    return RunResults(
        record=record,
        data=tuple(data),
        encoder=encoder,
        probe=probe,
        tasks=tuple(tasks),
        refused_teachers=refused,
        audits={task.name: _audit(config, record, task) for task in config.tasks},
        refused_spans=tuple(
            one for one in read_refused(config.root) if one.data in {item.name for item in data}
        ),
    )


def loaded(model: ModelResult, config: CanaryConfig) -> ModelResult:
    """Return the result after its version in service was loaded and asked.

    A version that does not answer is not published.

    Args:
        model: the result.
        config: limits of the canary.
    """
    faults = () if model.published is None else damage_of(str(model.published), config)
    damage = tuple(
        f"{model.published}: is in service but damaged ({fault}): put another version in service "
        "(`terrapair rollback`), or remove this folder and run again"
        for fault in faults
    )
    return dataclasses.replace(model, damage=damage, published=None) if damage else model


def _audit(config: RunConfig, record: RunRecord, task: TaskConfig) -> str:
    """Return the verdict of a task's audit, and which pairs it could not compare."""
    audit = f"OverlapAudit-{task.name}"
    starts = encoder_starts(task.segment, None).values()
    unknown = [
        f"not compared with {reason}; it may have seen the places of the eval and test patches"
        for reason in seen_pairs(starts, with_remote=config.encoder is not None).unknown
    ]
    if not record.is_complete(audit):
        return "; ".join(unknown) or "nothing to compare with: it is trained from new weights"
    return "; ".join([read_report(record.output(audit, "report").uri).verdict, *unknown])


def _refused_teachers(config: RunConfig, record: RunRecord) -> tuple[str, ...]:
    """Return the teachers that their Evaluators refused, among those evaluated."""
    teachers = {task.distill.teacher for task in config.tasks if task.distill is not None}
    evaluators = {name: f"Evaluator-{name}" for name in sorted(teachers)}
    return tuple(
        name
        for name, evaluator in evaluators.items()
        if record.is_complete(evaluator)
        and not record.output(evaluator, "blessing").properties.get("blessed")
    )


def read_slices(evaluation: str) -> dict[str, dict[str, float]]:
    """Return slice -> metric -> value of a TFMA evaluation, the overall slice first.

    Values are NaN where TFMA has NaN.
    """
    slices = {}
    for key, outputs in tfma.load_eval_result(evaluation).slicing_metrics:
        name = ", ".join(f"{feature}={value}" for feature, value in key) or OVERALL
        slices[name] = {
            metric: _double(value)
            for metric, value in outputs[""][""].items()
            if "doubleValue" in value
        }
    return dict(sorted(slices.items(), key=lambda item: (item[0] != OVERALL, item[0])))


def read_failures(evaluation: str) -> tuple[ThresholdFailure, ...]:
    """Return the thresholds of a TFMA evaluation that were missed."""
    failures = []
    for checked in tfma.load_validation_result(evaluation).metric_validations_per_slice:
        for failure in checked.failures:
            value = (
                failure.metric_value.double_value.value
                if failure.HasField("metric_value")
                else math.nan
            )
            bound = failure.metric_threshold.value_threshold.lower_bound.value
            failures.append(
                ThresholdFailure(metric=failure.metric_key.name, value=value, lower_bound=bound)
            )
    return tuple(failures)


def read_anomalies(folder: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """Return split -> lines "feature: description" of an ExampleValidator's output.

    Splits without anomalies are left out.
    """
    found = {}
    for path in sorted(locate(folder).glob(f"Split-*/{_ANOMALIES_FILE}")):
        anomalies = anomalies_pb2.Anomalies.FromString(path.read_bytes())
        lines = tuple(
            f"{name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())
        )
        if lines:
            found[path.parent.name.removeprefix("Split-")] = lines
    return found


def _test_scores(record: RunRecord, task: str) -> Location | None:
    scorer = f"Scorer-{task}"
    return scores_path(record.output(scorer, "scores").uri) if record.is_complete(scorer) else None


def _double(value: Mapping[str, float]) -> float:
    # TFMA's JSON writes NaN as text.
    return float(value["doubleValue"])


def _data(record: RunRecord, name: str, data_dir: str) -> DataResult:
    found = read_manifest(record.output(f"DataManifest-{name}", "manifest").uri)
    check = f"DriftCheck-{name}"
    return DataResult(
        name=name,
        version_dir=layout.version_dir(data_dir, found.span, found.version),
        manifest=found,
        anomalies=_anomalies(record, name),
        drift=(
            read_drift(record.output(check, "report").uri) if record.is_complete(check) else None
        ),
    )


def _anomalies(record: RunRecord, name: str) -> dict[str, tuple[str, ...]]:
    """Return the anomalies; none if the run ended before ExampleValidator."""
    validator = f"ExampleValidator-{name}"
    if not record.is_complete(validator):
        return {}
    return read_anomalies(record.output(validator, "anomalies").uri)


def _served(config: RunConfig, name: str) -> Location | None:
    return find_published(config.serving_dir, name)


def _model(config: RunConfig, record: RunRecord, trainer: str, name: str) -> ModelResult:
    log_dir = record.output(trainer, "model_run").uri
    saved_model = locate(path_utils.serving_model_path(record.output(trainer, "model").uri))
    served = _served(config, name)
    # Not what the Pusher remembers: it may have come from the cache, and another model
    # may have taken its place since.
    is_served = served is not None and model_sha256(served) == tree_sha256(str(saved_model))
    return ModelResult(
        name=name,
        saved_model=saved_model,
        log_dir=locate(log_dir),
        training=read_metrics(log_dir),
        health=read_card(str(saved_model)).get("health") or {},
        canary=read_findings(record.output(f"Canary-{name}", "findings").uri),
        published=served if is_served else None,
    )
