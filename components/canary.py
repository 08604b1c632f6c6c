"""Canary: try a model as a server would, before the Pusher publishes it.

A Trainer's Model -> an InfraBlessing that the Pusher obeys, and the findings. TFX's
InfraValidator needs docker or a cluster, and does not run on Kubeflow Pipelines. The
trial itself is in `models/published/canary.py`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import json
import os

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import path_utils

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import locate, staged
from components.artifacts import SOURCES, read_document
from components.canary_process import try_model
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component
from models.published.canary import CanaryConfig, Findings

FINDINGS_FILE = "canary.json"
_BLESSED_KEY = "blessed"
_BLESSED_FILE, _NOT_BLESSED_FILE = "INFRA_BLESSED", "INFRA_NOT_BLESSED"
"""Source: tfx/components/infra_validator/executor.py, same property and markers."""


@component
def Canary(  # noqa: N802 - TFX names a component after its function
    model: InputArtifact[standard_artifacts.Model],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    findings: OutputArtifact[simple_artifacts.File],
    config: Parameter[str],
    code: Parameter[str],
) -> None:
    """Try the model; succeed whatever is found.

    Args:
        model: output of a Trainer.
        blessing: receives whether the model may be served.
        findings: receives `canary.json`.
        config: CanaryConfig as JSON.
        code: fingerprint of the code, because TFX's cache does not see changed code.
    """
    del code
    found = try_model(
        path_utils.serving_model_path(model.uri),
        settings.from_dict(CanaryConfig, json.loads(config), "canary"),
        os.environ,
    )
    with staged(locate(findings.uri) / FINDINGS_FILE) as file:
        file.write_text(settings.canonical_json(found) + "\n")
    is_fit = not found.faults
    blessing.set_int_custom_property(_BLESSED_KEY, int(is_fit))
    with staged(locate(blessing.uri) / (_BLESSED_FILE if is_fit else _NOT_BLESSED_FILE)) as file:
        file.touch()


def read_findings(folder: str) -> Findings:
    """Return the findings of a Canary's `findings` artifact."""
    return read_document(
        folder,
        FINDINGS_FILE,
        lambda text: settings.from_dict(Findings, json.loads(text), "canary"),
    )


def create_canary(name: str, model: BaseComponent, config: CanaryConfig) -> BaseComponent:
    """Return the Canary "Canary-<name>" of one model.

    Args:
        name: "encoder" or the task's name.
        model: the Trainer that made the model.
        config: limits.
    """
    return Canary(
        model=model.outputs["model"],
        config=settings.canonical_json(config),
        code=source_fingerprint(SOURCES),
    ).with_id(f"Canary-{name}")
