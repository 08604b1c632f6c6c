"""EncoderProbe and EncoderGate: no encoder is published, and none is a segmenter's start, that has not shown what it can.

The pretrain Trainer's Model, the eval pairs and a task's train and eval patches -> a
ModelBlessing, which the Pusher obeys, and a report; the gate reads the report and fails
when the encoder is refused. Two components, so that the report of a failed run is an
artifact too. All measuring is in `models/encoder_probe`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import dataclasses
import json
import os

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import io_utils, path_utils

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.errors import DataError
from components.blessing import REPORT_FILE, read_report, write_blessing, write_report
from components.data_manifest import read_manifest
from components.examples import ExampleComponents
from components.pretrain_trainer import list_files
from components.publishing import ENCODER_NAME, find_published
from components.tfx_types import (
    InputArtifact,
    OptionalInputArtifact,
    OutputArtifact,
    Parameter,
    component,
)
from models.encoder_probe.config import ProbeConfig
from models.encoder_probe.measurements import LabeledFiles, ProbeData
from models.encoder_probe.probe import probe_encoder

SOURCES = ("models", "beam_jobs/contracts", "components")


@component
def EncoderProbe(  # noqa: N802, D417 - TFX names a component after its function
    model: InputArtifact[standard_artifacts.Model],
    pairs: InputArtifact[standard_artifacts.Examples],
    pairs_manifest: InputArtifact[standard_artifacts.HyperParameters],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
    report: OutputArtifact[simple_artifacts.File],
    serving_dir: Parameter[str],
    config: Parameter[str],
    code: Parameter[str],
    labels: OptionalInputArtifact[standard_artifacts.Examples] = None,
    labels_manifest: OptionalInputArtifact[standard_artifacts.HyperParameters] = None,
) -> None:
    """Probes the encoder; ends well whatever it finds.

    Args:
        model: output of the pretrain Trainer.
        pairs: Examples of the pairs; the eval split is read.
        pairs_manifest: output of their DataManifest.
        serving_dir: base folder of the published models; the newest encoder there is
            what this one must not fall behind.
        config: ProbeConfig as JSON; its `task` names the labels.
        code: fingerprint, since the cache does not see changed code.
        labels: Examples of a task; train and eval are read, never test. None: no linear
            probe.
        labels_manifest: output of their DataManifest.
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
    last = find_published(serving_dir, ENCODER_NAME)
    encoder_dir = path_utils.serving_model_path(model.uri)
    found = probe_encoder(probe_config, encoder_dir, "" if last is None else str(last), data)
    write_report(found, report.uri)
    # Last: what makes the outcome visible.
    write_blessing(blessing, model, found.is_blessed)


@component
def EncoderGate(  # noqa: N802
    report: InputArtifact[simple_artifacts.File],
) -> None:
    """Fails when the encoder is refused.

    Args:
        report: output of EncoderProbe.

    Raises:
        DataError: it is; with the reasons, what to do and where the report is.
    """
    found = read_report(report.uri)
    if not found.is_blessed:
        where = os.path.join(report.uri, REPORT_FILE)
        raise DataError(
            f"the encoder is refused: {'; '.join(found.refusals)}; nothing is trained on it, and what is published stays in "
            f"service: mend the pairs or pretrain longer, or change the thresholds of `probe`; all checks are in {where}",
            "encoder_refused",
        )


def split_files(examples: standard_artifacts.Examples, split: str) -> list[str]:
    """The files of one split of an Examples artifact, sorted.

    Raises:
        ValueError: the split is empty.
    """
    return list_files([io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split))])


def create_encoder_probe(
    config: ProbeConfig,
    model: BaseComponent,
    pairs: ExampleComponents,
    serving_dir: str,
    task: str,
    labels: ExampleComponents | None,
) -> tuple[BaseComponent, BaseComponent]:
    """(EncoderProbe, EncoderGate); what trains on the encoder must wait for the gate.

    Args:
        config: thresholds; cross the TFX boundary as JSON.
        model: the pretrain Trainer.
        pairs: data components of the pairs.
        serving_dir: base folder of the published models; may be an object store.
        task: name of the task that `labels` are of; empty without.
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
        serving_dir=serving_dir,
        config=settings.canonical_json(dataclasses.replace(config, task=task)),
        code=source_fingerprint(SOURCES),
        **optional,
    )
    gate = EncoderGate(report=prober.outputs["report"])
    return prober, gate
