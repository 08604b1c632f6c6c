"""The two artifacts of EncoderProbe: its report, and a ModelBlessing as TFX writes it.

ProbeReport -> files and artifact properties, and back.
"""

from __future__ import annotations

from tfx.components.evaluator import constants
from tfx.types import standard_artifacts

from beam_jobs.contracts.locations import locate, staged
from components.artifacts import read_document
from models.encoder_probe import report as report_lib
from models.encoder_probe.report import ProbeReport

REPORT_FILE = "encoder_probe.json"


def write_report(report: ProbeReport, folder: str) -> None:
    """Write `report` as the only file of `folder`."""
    with staged(locate(folder) / REPORT_FILE) as file:
        file.write_text(report.to_json())


def read_report(folder: str) -> ProbeReport:
    """Return the report of an EncoderProbe's `report` artifact."""
    return read_document(folder, REPORT_FILE, report_lib.from_json)


def write_blessing(
    blessing: standard_artifacts.ModelBlessing, model: standard_artifacts.Model, is_blessed: bool
) -> None:
    """Fill `blessing` so that TFX's Pusher and latest-blessed-model resolver read it.

    Source: tfx/components/evaluator/executor.py, same properties and marker file.
    """
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
