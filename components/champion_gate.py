"""ChampionGate: compare a new segmenter with the one in service, on the same patches.

A segment Trainer's Model, its test scores and the Evaluator's blessing -> a
ModelBlessing that the Pusher obeys, and a verdict with all numbers. TFX's own resolver
of the last blessed model does not run on Kubeflow Pipelines, so the model in service is
read from the serving folder. The judging itself is in `models/gate`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import dataclasses
import json

from tfx.components.evaluator import constants
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import path_utils

from beam_jobs.contracts import published, settings
from beam_jobs.contracts.fingerprint import source_fingerprint, tree_sha256
from beam_jobs.contracts.locations import locate
from components.artifacts import SOURCES, split_files
from components.blessing import write_blessing, write_verdict
from components.data_manifest import read_manifest
from components.drift_check import read_new_reference
from components.examples import ExampleComponents
from components.scorer import SPLIT, scores_path
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component
from models.drift.reference import published_files
from models.gate.champion import IncomparableError, TestSplit, score_both
from models.gate.config import GateConfig
from models.gate.judgement import judge
from models.gate.verdict import Verdict
from models.publishing import store
from models.publishing.publication import Approval
from models.publishing.rollback import was_rolled_back
from models.scores.score_file import read_scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A new model, as the gate sees it.

    Attributes:
        model_dir: its SavedModel.
        scores_file: its counts on the test split.
        test: the test split.
        reached: whether the Evaluator blessed it: it reached the thresholds.
        has_thresholds: whether there are any.
        batch_size: patches at a time.
    """

    model_dir: str
    scores_file: str
    test: TestSplit
    reached: bool
    has_thresholds: bool
    batch_size: int


def decide(candidate: Candidate, served_dir: str, config: GateConfig) -> Verdict:
    """Return the verdict about a candidate.

    Args:
        candidate: the new model.
        served_dir: folder of the published versions of this model.
        config: margins and guards.
    """
    found = published.in_service(served_dir)
    champion = "" if found is None else str(found)
    sha256 = tree_sha256(candidate.model_dir)

    def refuse(*reasons: str) -> Verdict:
        return Verdict(outcome="refused", champion=champion, reasons=reasons)

    if not candidate.reached:
        return refuse("it misses a threshold of the task")
    if found is not None and store.model_sha256(found) == sha256:
        return Verdict(
            outcome="in_service", champion=champion, reasons=(f"it is in service as {champion}",)
        )
    if (why := was_rolled_back(served_dir, sha256)) is not None:
        return refuse(f"{why}; `terrapair rollback --to` puts it in service again")
    own = read_scores(candidate.scores_file)
    incomparable = ""
    if found is not None:
        try:
            scored, notes = score_both(
                candidate.model_dir, own, champion, candidate.test, candidate.batch_size
            )
            verdict = judge(scored, config, champion)
            return dataclasses.replace(verdict, notes=(*notes, *verdict.notes))
        except IncomparableError as error:
            incomparable = str(error)
        if not config.accept_incomparable:
            return refuse(
                f"it cannot be compared with the model in service: {incomparable}; to publish it "
                "by its thresholds alone, set gate.accept_incomparable=true"
            )
    if not candidate.has_thresholds:
        return refuse(
            "there is no model to compare it with, and the task has no thresholds: set "
            "min_mean_iou or min_iou"
        )
    return Verdict(
        outcome="blessed",
        champion=champion,
        reasons=("it reaches the thresholds of the task",),
        notes=(f"not compared: {incomparable}",) if incomparable else (),
    )


@component
def ChampionGate(  # noqa: N802 - TFX names a component after its function
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    manifest: InputArtifact[standard_artifacts.HyperParameters],
    scores: InputArtifact[simple_artifacts.File],
    evaluation: InputArtifact[standard_artifacts.ModelBlessing],
    reference: InputArtifact[simple_artifacts.File],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
    verdict: OutputArtifact[simple_artifacts.File],
    settings_json: Parameter[str],
    since: Parameter[str],
    code: Parameter[str],
) -> None:
    """Decide whether the model may be published; succeed whatever the outcome is.

    Args:
        model: output of the task's Trainer.
        examples: Examples of the task; only the test split is read.
        manifest: output of their DataManifest.
        scores: output of the task's Scorer.
        evaluation: blessing of the task's Evaluator.
        reference: output of the DriftCheck: what is published with the model of the
            data that it was trained on.
        blessing: receives the decision.
        verdict: receives `gate.json`.
        settings_json: see `create_champion_gate`.
        since: identifier of what is in service; TFX's cache does not see that.
        code: fingerprint of the code, which TFX's cache does not see either.
    """
    del code
    given = json.loads(settings_json)
    candidate = Candidate(
        model_dir=path_utils.serving_model_path(model.uri),
        scores_file=str(scores_path(scores.uri)),
        test=TestSplit(
            manifest=read_manifest(manifest.uri),
            files=split_files(examples, SPLIT),
            data_root=given["data_root"],
        ),
        reached=(locate(evaluation.uri) / constants.BLESSED_FILE_NAME).exists(),
        has_thresholds=given["has_thresholds"],
        batch_size=given["batch_size"],
    )
    config = settings.from_dict(GateConfig, given["gate"], "gate")
    found = decide(candidate, given["served_dir"], config)
    found = dataclasses.replace(found, since=since)
    write_verdict(found, verdict.uri)
    approval = Approval(
        reason=found.reasons[0],
        document=found.to_json(),
        since=since,
        run=given["run"],
        files=published_files(read_new_reference(reference.uri)),
    )
    # Last, because the blessing makes the outcome visible.
    write_blessing(blessing, model, found.is_blessed, approval)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GateSettings:
    """What a gate needs to know besides its inputs.

    Attributes:
        task: the task's name: the model's folder below `serving_dir`.
        run: name of the run, for the history.
        serving_dir: base folder of all published models.
        gate: margins and guards.
        has_thresholds: whether the task has any threshold.
        batch_size: patches at a time.
        since: what is in service, by `labels.state_of`; the same text lets TFX's cache
            answer.
    """

    task: str
    run: str
    serving_dir: str
    gate: GateConfig
    has_thresholds: bool
    batch_size: int
    since: str


def create_champion_gate(
    given: GateSettings,
    data: ExampleComponents,
    trainer: BaseComponent,
    scorer: BaseComponent,
    evaluator: BaseComponent,
) -> BaseComponent:
    """Return the gate "ChampionGate-<task>" of one task's model.

    Args:
        given: settings.
        data: data components of the task's labelled patches.
        trainer: Trainer of the model.
        scorer: Scorer of the model.
        evaluator: Evaluator of the model.
    """
    served_dir = f"{given.serving_dir.rstrip('/')}/{given.task}"
    values = {
        "run": given.run,
        "served_dir": served_dir,
        "data_root": data.data_root,
        "gate": settings.to_dict(given.gate),
        "has_thresholds": given.has_thresholds,
        "batch_size": given.batch_size,
    }
    return ChampionGate(
        model=trainer.outputs["model"],
        examples=data.examples.outputs["examples"],
        manifest=data.manifest.outputs["manifest"],
        scores=scorer.outputs["scores"],
        evaluation=evaluator.outputs["blessing"],
        reference=data.drift_check.outputs["reference"],
        settings_json=json.dumps(values, sort_keys=True),
        since=given.since,
        code=source_fingerprint(SOURCES),
    ).with_id(f"ChampionGate-{given.task}")
