"""The Canary in a process of its own, and its blessing as TFX's Pusher reads it."""

import os
import shutil
from pathlib import Path

import pytest
from tfx.components.util import model_utils
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts

from beam_jobs.contracts import settings
from components import canary
from models.published.canary import CanaryConfig
from tests.data.runs.make_artifacts import artifact_of


def run(model, root):
    """Return whether TFX takes the model as fit, and the findings."""
    blessing = artifact_of(standard_artifacts.InfraBlessing, root / "blessing")
    findings = artifact_of(simple_artifacts.File, root / "findings")
    canary.Canary.test_call(
        model=model,
        blessing=blessing,
        findings=findings,
        config=settings.canonical_json(CanaryConfig()),
        code="x",
    )
    return model_utils.is_infra_validated(blessing), canary.read_findings(findings.uri)


@pytest.fixture
def keras_was_imported(tmp_path, monkeypatch):
    """The file that a process writes when it imports Keras: before the real one, it finds this."""
    file = tmp_path / "imported"
    package = tmp_path / "first" / "keras"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(file)!r}, 'w').close()\n")
    path = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    return file


@pytest.mark.e2e
def test_a_trained_model_passes_and_one_without_weights_does_not(
    model, tmp_path, keras_was_imported
):
    is_fit, found = run(model, tmp_path / "good")
    assert is_fit
    assert found.faults == ()
    assert found.num_calls == 8
    assert found.max_difference < 1e-5
    # Which it is depends on what is installed here.
    assert found.second_reader.startswith(("openvino 20", "not checked: openvino is not"))
    broken = Path(shutil.copytree(model.uri, tmp_path / "broken"))
    shutil.rmtree(broken / "Format-Serving" / "variables")
    is_fit, found = run(artifact_of(standard_artifacts.Model, broken), tmp_path / "bad")
    assert not is_fit
    assert found.faults[0].startswith("the process ended with code 1: ")
    # A server has no Keras, either.
    assert not keras_was_imported.exists()
