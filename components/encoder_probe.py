"""EncoderProbe and EncoderGate: measure the pretrained encoder, and refuse a poor one.

The pretrain Trainer's Model, the eval pairs, and train and eval patches of a task -> a
ModelBlessing that the Pusher obeys, and a report. The gate reads the report and fails
when the encoder is refused. An untrained encoder (objective "none") is never blessed,
but passes the gate: it is a control that tasks are compared with. They are two
components so that the report is kept as an artifact when the run fails. The measuring
itself is in `models/encoder_probe`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import dataclasses
import json
import os

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import path_utils

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint, tree_sha256
from beam_jobs.contracts.published import ENCODER_NAME, in_service
from beam_jobs.errors import RefusedError
from components.artifacts import SOURCES, split_files
from components.blessing import REPORT_FILE, read_report, write_blessing, write_report
from components.data_manifest import read_manifest
from components.drift_check import read_new_reference
from components.examples import ExampleComponents
from components.tfx_types import (
    InputArtifact,
    OptionalInputArtifact,
    OutputArtifact,
    Parameter,
    component,
)
from models.drift.embedding_drift import sample_of
from models.drift.reference import published_files
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import LabeledFiles, ProbeData
from models.encoder_probe.probe import probe_encoder
from models.encoder_probe.report import failed_check
from models.publishing.publication import Approval
from models.publishing.rollback import was_rolled_back


@component
def EncoderProbe(  # noqa: N802, D417 - TFX names a component after its function
    model: InputArtifact[standard_artifacts.Model],
    pairs: InputArtifact[standard_artifacts.Examples],
    pairs_manifest: InputArtifact[standard_artifacts.HyperParameters],
    reference: InputArtifact[simple_artifacts.File],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
    report: OutputArtifact[simple_artifacts.File],
    serving_dir: Parameter[str],
    config: Parameter[str],
    num_kept: Parameter[int],
    run: Parameter[str],
    since: Parameter[str],
    code: Parameter[str],
    labels: OptionalInputArtifact[standard_artifacts.Examples] = None,
    labels_manifest: OptionalInputArtifact[standard_artifacts.HyperParameters] = None,
) -> None:
    """Measure the encoder; succeed whatever the outcome is.

    Args:
        model: output of the pretrain Trainer.
        pairs: Examples of the pairs; only the eval split is read.
        pairs_manifest: output of their DataManifest.
        reference: output of their DriftCheck: what is published with the encoder of the
            pairs that it was trained on.
        serving_dir: base folder of the published models. The encoder is compared with
            the encoder in service.
        config: ProbeConfig as JSON; its `task` names the labels.
        num_kept: eval patches whose embeddings are published with the encoder.
        run: name of the run, for the history.
        since: identifier of what is in service; TFX's cache does not see that.
        code: fingerprint of the code, because TFX's cache does not see changed code.
        labels: Examples of a task; train and eval are read, never test. None: no linear
            probe.
        labels_manifest: output of their DataManifest; None with `labels`.
    """
    del code
    probe_config = settings.from_dict(ProbeConfig, json.loads(config), "probe")
    labeled = None
    if labels is not None and labels_manifest is not None:
        labeled = LabeledFiles(
            task=probe_config.task,
            manifest=read_manifest(labels_manifest.uri),
            train_files=split_files(labels, "train"),
            eval_files=split_files(labels, "eval"),
        )
    data = ProbeData(
        manifest=read_manifest(pairs_manifest.uri),
        files=split_files(pairs, "eval"),
        labels=labeled,
    )
    served_dir = f"{serving_dir.rstrip('/')}/{ENCODER_NAME}"
    last = in_service(served_dir)
    encoder_dir = path_utils.serving_model_path(model.uri)
    probed = probe_encoder(probe_config, encoder_dir, "" if last is None else str(last), data)
    found = probed.report
    if (why := was_rolled_back(served_dir, tree_sha256(encoder_dir))) is not None:
        found = dataclasses.replace(found, checks=(*found.checks, failed_check("in_service", why)))
    write_report(found, report.uri)
    kept = dataclasses.replace(
        read_new_reference(reference.uri),
        embeddings=sample_of(probed.view.pairs, probed.view.sensors, num_kept),
    )
    approval = Approval(
        reason="every check of the probe passed",
        document=found.to_json(),
        since=since,
        run=run,
        files=published_files(kept),
    )
    # Last, because the blessing makes the outcome visible.
    write_blessing(blessing, model, found.is_blessed, approval)


@component
def EncoderGate(  # noqa: N802
    report: InputArtifact[simple_artifacts.File],
) -> None:
    """Fail when a check refused the encoder.

    Args:
        report: output of EncoderProbe.

    Raises:
        RefusedError: the encoder is refused; the message has the reasons, what to do
            and the path of the report.
    """
    found = read_report(report.uri)
    # No Pusher takes an untrained control, which is not blessed, but tasks may train on
    # it.
    if found.refusals:
        where = os.path.join(report.uri, REPORT_FILE)
        raise RefusedError(
            f"the encoder is refused: {'; '.join(found.refusals)}; no model is trained on it, and "
            "the published encoder stays in service: check the pairs, pretrain longer, or change "
            f"the thresholds of `probe`; all checks are in {where}",
            "encoder_refused",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedBefore:
    """The published encoders that a new one is compared with.

    Attributes:
        serving_dir: base folder of the published models; may be an object store.
        run: name of the run, for the history.
        since: what is in service, by `labels.state_of`; the same text lets TFX's cache
            answer.
        num_kept: eval patches whose embeddings are published with the encoder.
    """

    serving_dir: str
    run: str
    since: str
    num_kept: int


def create_encoder_probe(
    config: ProbeConfig,
    model: BaseComponent,
    *,
    pairs: ExampleComponents,
    published: PublishedBefore,
    labels: ExampleComponents | None,
) -> tuple[BaseComponent, BaseComponent]:
    """Return (EncoderProbe, EncoderGate).

    Whatever trains on the encoder must wait for the gate.

    Args:
        config: thresholds, and the task that `labels` belong to, empty without; passed
            to the component as JSON.
        model: the pretrain Trainer.
        pairs: data components of the pairs.
        published: where the encoder in service is.
        labels: data components of that task; None: no linear probe.
    """
    optional = {}
    if labels is not None:
        optional = {
            "labels": labels.examples.outputs["examples"],
            "labels_manifest": labels.manifest.outputs["manifest"],
        }
    prober = EncoderProbe(
        model=model.outputs["model"],
        pairs=pairs.examples.outputs["examples"],
        pairs_manifest=pairs.manifest.outputs["manifest"],
        reference=pairs.drift_check.outputs["reference"],
        serving_dir=published.serving_dir,
        config=settings.canonical_json(config),
        num_kept=published.num_kept,
        run=published.run,
        since=published.since,
        code=source_fingerprint(SOURCES),
        **optional,
    )
    gate = EncoderGate(report=prober.outputs["report"])
    return prober, gate
