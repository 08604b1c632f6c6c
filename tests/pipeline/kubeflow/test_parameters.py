"""The parameters of a compiled pipeline reach the settings of the run."""

import json

import pytest

from beam_jobs.contracts import settings
from beam_jobs.contracts.settings import SettingsError
from pipeline.assembly.full import create_pipeline
from pipeline.config import RunConfig
from pipeline.kubeflow.parameters import parse_parameters


@pytest.fixture
def load(values):
    def read(overrides):
        return settings.from_dict(RunConfig, settings.apply_overrides(values, overrides))

    return read


def test_overrides_thresholds_and_span_are_settings(load):
    given = parse_parameters(
        '["pretrain.num_steps=7"]',
        '{"flood":{"min_mean_iou":0.5,"min_iou":{"water":0.4}},"probe":{"min_spread":0.2}}',
        3,
    )
    config = given.applied(load)
    assert (config.pretrain.num_steps, config.span, config.probe.min_spread) == (7, 3, 0.2)
    (task,) = config.tasks
    assert (task.min_mean_iou, task.min_iou) == (0.5, {"water": 0.4})
    assert parse_parameters("[]", "{}", 0).applied(load) == load(())


def test_a_span_is_the_one_that_example_gen_takes(load):
    def ranges(config):
        return {
            one.id: one.exec_properties["range_config"]
            for one in create_pipeline(config).components
            if one.id.startswith("ImportExampleGen")
        }

    of_three = ranges(load(("span=3",)))
    assert set(of_three) == {"ImportExampleGen-pairs", "ImportExampleGen-flood"}
    for text in of_three.values():
        assert json.loads(text) == {"static_range": {"start_span_number": 3, "end_span_number": 3}}
    assert set(ranges(load(())).values()) == {None}


@pytest.mark.parametrize(
    ("overrides", "thresholds", "told"),
    [
        ("a.b=c", "{}", "--overrides: must be JSON, got a.b=c"),
        ('{"a": 1}', "{}", "--overrides: must be a JSON list"),
        ("[1]", "{}", "--overrides: must be a JSON list"),
        ("[]", '{"flood": 0.5}', "--thresholds: must be a JSON object such as"),
        ("[]", '{"wood": {}}', "--thresholds: no task 'wood'; known: probe, flood"),
        ("[]", '{"flood": {"iou": 1}}', "--thresholds: flood has min_mean_iou, min_iou, got 'iou'"),
        ("[]", '{"flood": {"min_mean_iou": 2}}', "min_mean_iou must be within 0-1, got 2"),
        ('["spans={last: 2}", "span=1"]', "{}", "span must be at least 1, and without spans"),
    ],
)
def test_wrong_parameters_are_named(load, overrides, thresholds, told):
    with pytest.raises(SettingsError, match=told):
        parse_parameters(overrides, thresholds, 0).applied(load)
