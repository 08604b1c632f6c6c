"""The pipeline as components: what they know of the models in service."""

import uuid

import pytest

from beam_jobs.contracts import settings
from models.publishing.publication import Approval, publish
from models.publishing.rollback import Steps, roll_back
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig


@pytest.fixture
def config(values, tmp_path):
    """A run whose task has a model of two versions in service; its encoder has none."""
    for number in (1, 2):
        model = tmp_path / f"model-{number}"
        (model / "assets.extra").mkdir(parents=True)
        (model / "saved_model.pb").write_text(f"graph {number}")
        (model / "assets.extra" / "model_card.json").write_text('{"inputs": {}}')
        publish(
            str(model),
            str(tmp_path / "run/serving/flood"),
            Approval(reason="better", since=f"s{number}"),
        )
    return settings.from_dict(RunConfig, values | {"root": str(tmp_path / "run")})


def since_of(config):
    """Component -> what it is told of the model in service."""
    return {
        one.id: one.exec_properties["since"]
        for one in create_pipeline(config, uuid.uuid4().hex).components
        if "since" in one.exec_properties
    }


def test_a_changed_reference_compares_the_data_again(config):
    first = since_of(config)
    assert set(first) == {
        "DriftCheck-pairs",
        "DriftCheck-flood",
        "EncoderProbe",
        "ChampionGate-flood",
    }
    # TFX's cache answers for what is in service already, and never where nothing is.
    assert first["DriftCheck-flood"] == first["ChampionGate-flood"] == "s2"
    assert since_of(config)["DriftCheck-flood"] == "s2"
    # What the probe publishes under must be what the next run's check is told.
    assert first["DriftCheck-pairs"] == first["EncoderProbe"] != since_of(config)["EncoderProbe"]
    steps = Steps(check=lambda _: None, follow=lambda: None, withdraw=False)
    roll_back(f"{config.serving_dir}/flood", 1, "worse", steps)
    again = since_of(config)
    assert again["DriftCheck-flood"] == again["ChampionGate-flood"] != "s2"
