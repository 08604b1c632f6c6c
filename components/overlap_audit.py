"""OverlapAudit and OverlapGate: keep models from being judged on pretraining's ground.

Examples of the pairs and of a task -> a report of the train patches that overlap the
task's eval and test patches. The pairs of published encoders that the task starts from
are compared too, where they are at hand. The gate reads the report and fails when there
is an overlap. They are two components so that the report is kept as an artifact when
the run fails, and so that the audit is cached.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts

from beam_jobs.contracts import layout, manifest, settings, windows
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import locate, staged
from beam_jobs.errors import RefusedError
from beam_jobs.judging import audit
from components.artifacts import read_document
from components.data_manifest import resolve_window
from components.examples import ExampleComponents
from components.tfx_types import (
    InputArtifact,
    OptionalInputArtifact,
    OutputArtifact,
    Parameter,
    component,
)

REPORT_FILE = "overlaps.json"
SOURCES = (
    "beam_jobs/judging/audit.py",
    "beam_jobs/judging/overlaps.py",
    "beam_jobs/contracts",
    "components/overlap_audit.py",
)


OverlapReport = simple_artifacts.File
"""Artifact with one file, the AuditReport as JSON.

It has no type of its own: a Kubeflow container looks the class up by the type's name,
and TFX allows no module path in that name.
"""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What an audit needs to know besides its artifacts.

    Attributes:
        pairs_root: folder that the ExampleGen of the pairs reads from; empty without
            pairs of this run.
        labels_root: folder that the ExampleGen of the task reads from.
        buffer_m: patches closer than this count as overlapping, metres.
        seen: versions of pairs that the task's published encoders were trained on.
    """

    pairs_root: str
    labels_root: str
    buffer_m: float
    seen: tuple[str, ...] = ()


def audit_examples(
    pairs: standard_artifacts.Examples | None,
    labels: standard_artifacts.Examples,
    config: AuditConfig,
) -> audit.AuditReport:
    """Compare the labels with the pairs of this run and of published encoders.

    The shards are read in the folders where they were built: ExampleGen's copies have
    no manifest with bands and pixel size beside them.

    Args:
        pairs: output of ImportExampleGen over the pairs; None: the run has none.
        labels: output of ImportExampleGen over a task's patches.
        config: where both were read from, other pairs, and the buffer.
    """
    seen = {path: manifest.read(path) for path in config.seen}
    own = {} if pairs is None else _versions(pairs, config.pairs_root, "train")
    judged = _versions(labels, config.labels_root, "test")
    return audit.compare({**own, **seen}, judged, config.buffer_m)


def _versions(
    examples: standard_artifacts.Examples, root: str, split: layout.Split
) -> dict[str, manifest.Manifest]:
    """Return the versions that gave a split, with their manifests."""
    folders = [
        str(windows.version_dir(root, entry))
        for entry in resolve_window(examples, root)
        if split in entry.splits
    ]
    return {folder: manifest.read(folder) for folder in folders}


def read_report(folder: str) -> audit.AuditReport:
    """Return the report of an OverlapReport artifact."""
    return read_document(folder, REPORT_FILE, audit.from_json)


@component
def OverlapAudit(  # noqa: N802, D417 - TFX names a component after its function
    labels: InputArtifact[standard_artifacts.Examples],
    report: OutputArtifact[OverlapReport],
    config: Parameter[str],
    code: Parameter[str],
    pairs: OptionalInputArtifact[standard_artifacts.Examples] = None,
) -> None:
    """Compare the unlabeled train patches with the labelled eval and test patches.

    Succeeds whatever it finds; OverlapGate is what fails.

    Args:
        labels: output of ImportExampleGen over a task's patches.
        config: AuditConfig as JSON.
        code: fingerprint of the code, because TFX's cache does not see changed code.
        pairs: output of ImportExampleGen over the pairs; None: the run has none.
    """
    del code
    audit_config = settings.from_dict(AuditConfig, json.loads(config), "audit")
    found = audit_examples(pairs, labels, audit_config)
    with staged(locate(report.uri) / REPORT_FILE) as file:
        file.write_text(found.to_json())


@component
def OverlapGate(  # noqa: N802
    report: InputArtifact[OverlapReport],
) -> None:
    """Fail when there is an overlap.

    Args:
        report: output of OverlapAudit.

    Raises:
        RefusedError: there is an overlap; the message has the verdict and the path of
            the report.
    """
    found = read_report(report.uri)
    if found.num_overlaps:
        where = os.path.join(report.uri, REPORT_FILE)
        raise RefusedError(f"{found.verdict}; all are in {where}", "overlap")


def create_overlap_audit(
    name: str,
    *,
    pairs: ExampleComponents | None,
    labels: ExampleComponents,
    buffer_m: float,
    seen: Sequence[str] = (),
) -> tuple[BaseComponent, BaseComponent]:
    """Return (OverlapAudit, OverlapGate) of one task.

    Every training must wait for the gate.

    Args:
        name: name of the task, the suffix of the component ids.
        pairs: data components of the pairs; None: the run has none, and `seen` must
            name some.
        labels: data components of the task.
        buffer_m: the buffer of the split itself, which the patches keep between
            splits.
        seen: versions of pairs that the task's published encoders were trained on.
    """
    config = AuditConfig(
        pairs_root="" if pairs is None else pairs.data_root,
        labels_root=labels.data_root,
        buffer_m=float(buffer_m),
        seen=tuple(seen),
    )
    auditor = OverlapAudit(
        labels=labels.examples.outputs["examples"],
        config=settings.canonical_json(config),
        code=source_fingerprint(SOURCES),
        **({} if pairs is None else {"pairs": pairs.examples.outputs["examples"]}),
    ).with_id(f"OverlapAudit-{name}")
    gate = OverlapGate(report=auditor.outputs["report"]).with_id(f"OverlapGate-{name}")
    return auditor, gate
