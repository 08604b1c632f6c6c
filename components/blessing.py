"""What the judges of models write: their reports, and a ModelBlessing as TFX has it.

ProbeReport or Verdict -> files and artifact properties, and back. The report lies in
the blessing's folder too, because a Pusher gets nothing else from its judge.
"""

from __future__ import annotations

import dataclasses
import json

from tfx.components.evaluator import constants
from tfx.types import standard_artifacts

from beam_jobs.contracts.locations import list_tree, locate, staged
from components.artifacts import read_document
from models.encoder_probe import report as report_lib
from models.encoder_probe.report import ProbeReport
from models.gate import verdict as verdict_lib
from models.gate.verdict import Verdict
from models.publishing.publication import Approval

REPORT_FILE = "encoder_probe.json"
VERDICT_FILE = "gate.json"
_APPROVAL_FILE = "approval.json"
_FILES = "published_files"
"""Folder in a blessing with the files that a Pusher adds to the version."""


def write_report(report: ProbeReport, folder: str) -> None:
    """Write `report` as the only file of `folder`."""
    with staged(locate(folder) / REPORT_FILE) as file:
        file.write_text(report.to_json())


def read_report(folder: str) -> ProbeReport:
    """Return the report of an EncoderProbe's `report` artifact."""
    return read_document(folder, REPORT_FILE, report_lib.from_json)


def write_verdict(verdict: Verdict, folder: str) -> None:
    """Write a gate's verdict as the only file of `folder`."""
    with staged(locate(folder) / VERDICT_FILE) as file:
        file.write_text(verdict.to_json())


def read_verdict(folder: str) -> Verdict:
    """Return the verdict of a ChampionGate's `verdict` artifact."""
    return read_document(folder, VERDICT_FILE, verdict_lib.from_json)


def read_approval(folder: str) -> Approval:
    """Return why a judge blessed a model; a blessing of TFX's own has no reason."""
    if not (locate(folder) / _APPROVAL_FILE).exists():
        return Approval(reason="blessed by the Evaluator")
    read = read_document(folder, _APPROVAL_FILE, lambda text: Approval(**json.loads(text)))
    kept = locate(folder) / _FILES
    files = {name: (kept / name).read_bytes() for name in list_tree(kept)}
    return dataclasses.replace(read, files=files)


def write_blessing(
    blessing: standard_artifacts.ModelBlessing,
    model: standard_artifacts.Model,
    is_blessed: bool,
    approval: Approval | None = None,
) -> None:
    """Fill `blessing` so that TFX's Pusher and latest-blessed-model resolver read it.

    Source: tfx/components/evaluator/executor.py, same properties and marker file.

    Args:
        blessing: the artifact.
        model: that was judged.
        is_blessed: whether it may be published.
        approval: what the published version says about that.
    """
    if approval is not None:
        for name, content in approval.files.items() if is_blessed else ():
            with staged(locate(blessing.uri) / _FILES / name) as file:
                file.write_bytes(content)
        values = dataclasses.asdict(dataclasses.replace(approval, files={}))
        with staged(locate(blessing.uri) / _APPROVAL_FILE) as file:
            file.write_text(json.dumps(values))
    blessing.set_string_custom_property(
        constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri
    )
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY,
        constants.BLESSED_VALUE if is_blessed else constants.NOT_BLESSED_VALUE,
    )
    marker = constants.BLESSED_FILE_NAME if is_blessed else constants.NOT_BLESSED_FILE_NAME
    with staged(locate(blessing.uri) / marker) as file:
        file.touch()
