"""OverlapAudit and OverlapGate: no model may be judged on ground that pretraining saw, or nothing is trained.

The Examples of the pairs and of a task -> an OverlapReport artifact with the whole
report; the gate reads it and fails on an overlap. Two components, so that the report of
a failed run is an artifact too and a second look at it costs nothing.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import os

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts

from beam_jobs.contracts import manifest
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.errors import DataError
from beam_jobs.judging import audit
from components.data_manifest import resolve_version
from components.examples import ExampleComponents
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component

REPORT_FILE = "overlaps.json"
SOURCES = (
    "beam_jobs/judging/audit.py",
    "beam_jobs/judging/overlaps.py",
    "beam_jobs/contracts",
    "components/overlap_audit.py",
)


OverlapReport = simple_artifacts.File
"""A folder with one file, the AuditReport as JSON. A type of our own would not do: Kubeflow's container finds the class by
the type's name, which TFX allows no module of a package in."""


def audit_examples(
    pairs: standard_artifacts.Examples,
    pairs_root: str,
    labels: standard_artifacts.Examples,
    labels_root: str,
    buffer_m: float,
) -> audit.AuditReport:
    """Compares the versions that two ExampleGens took.

    The shards are read where they were built: ExampleGen's copies carry neither bands
    nor pixel size.
    """
    pair_version, label_version = (
        _version(*taken) for taken in ((pairs, pairs_root), (labels, labels_root))
    )
    return audit.compare(pair_version, label_version, buffer_m)


def _version(examples: standard_artifacts.Examples, root: str) -> dict[str, manifest.Manifest]:
    span, version = resolve_version(examples)
    path = os.path.join(root, f"span-{span}", f"version-{version}")
    return {path: manifest.read(path)}


def read_report(folder: str) -> audit.AuditReport:
    """The report of an OverlapReport artifact."""
    with fileio.open(os.path.join(folder, REPORT_FILE)) as file:
        return audit.from_json(file.read())


@component
def OverlapAudit(  # noqa: N802, D417 - TFX names a component after its function
    pairs: InputArtifact[standard_artifacts.Examples],
    labels: InputArtifact[standard_artifacts.Examples],
    report: OutputArtifact[OverlapReport],
    pairs_root: Parameter[str],
    labels_root: Parameter[str],
    buffer_m: Parameter[float],
    code: Parameter[str],
) -> None:
    """Compares the unlabeled train patches with the labelled eval and test patches; passes whatever it finds.

    Args:
        pairs: output of ImportExampleGen over the pairs.
        labels: the same of a task.
        pairs_root: the folder that the first one reads from.
        labels_root: likewise.
        buffer_m: patches closer than this count as overlapping.
        code: fingerprint, since the cache does not see changed code.
    """
    del code
    found = audit_examples(pairs, pairs_root, labels, labels_root, buffer_m)
    fileio.makedirs(report.uri)
    with fileio.open(os.path.join(report.uri, REPORT_FILE), "w") as file:
        file.write(found.to_json())


@component
def OverlapGate(  # noqa: N802
    report: InputArtifact[OverlapReport],
) -> None:
    """Fails on an overlap.

    Args:
        report: output of OverlapAudit.

    Raises:
        DataError: there is one; with the verdict and where the report is.
    """
    found = read_report(report.uri)
    if found.num_overlaps:
        where = os.path.join(report.uri, REPORT_FILE)
        raise DataError(f"{found.verdict}; all are in {where}", "overlap")


def create_overlap_audit(
    name: str,
    pairs: ExampleComponents,
    pairs_root: str,
    labels: ExampleComponents,
    labels_root: str,
    buffer_m: float,
) -> tuple[BaseComponent, BaseComponent]:
    """(OverlapAudit, OverlapGate) of one task; whatever trains must wait for the gate.

    Args:
        name: of the task: suffix of the component ids.
        pairs: data components of the pairs.
        pairs_root: folder that holds their versions; may be an object store.
        labels: data components of the task.
        labels_root: likewise.
        buffer_m: the splits' own buffer, which the built patches then keep.
    """
    auditor = OverlapAudit(
        pairs=pairs.examples.outputs["examples"],
        labels=labels.examples.outputs["examples"],
        pairs_root=pairs_root,
        labels_root=labels_root,
        buffer_m=float(buffer_m),
        code=source_fingerprint(SOURCES),
    ).with_id(f"OverlapAudit-{name}")
    gate = OverlapGate(report=auditor.outputs["report"]).with_id(f"OverlapGate-{name}")
    return auditor, gate
