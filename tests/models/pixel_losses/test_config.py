import pytest

from beam_jobs.contracts import settings
from models.pixel_losses.config import LossConfig


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"terms": {"crossentropy": 1, "dice": 0.5}},
        {"terms": {"focal": 1.0}, "focal_gamma": 0.5, "class_weights": {"water": 3}},
        {"class_weights": "balanced"},
    ],
)
def test_plain_values_survive_the_round_trip(values):
    config = settings.from_dict(LossConfig, values)
    assert settings.from_dict(LossConfig, settings.to_dict(config)) == config
    assert config.terms == {"crossentropy": 1.0} or config.terms == values["terms"]
    assert config.class_weights == values.get("class_weights", {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"terms": {}},
            "terms must name at least one of crossentropy, focal, dice, lovasz, got none",
        ),
        ({"terms": {"iou": 1.0}}, "terms must be of crossentropy, focal, dice, lovasz, got 'iou'"),
        ({"terms": {"dice": 0.0}}, "terms.dice must be above 0 and finite, got 0.0"),
        ({"focal_gamma": -1.0}, "focal_gamma must be at least 0 and finite, got -1.0"),
        (
            {"class_weights": "even"},
            "class_weights must be 'balanced' or weights by class name, got 'even'",
        ),
        (
            {"class_weights": {"water": 0.0}},
            "class_weights.water must be above 0 and finite, got 0.0",
        ),
        (
            {"terms": {"dice": 1.0}, "class_weights": "balanced"},
            r"class_weights needs one of the terms crossentropy, focal, got \['dice'\]",
        ),
    ],
)
def test_bad_values_are_refused_with_rule_and_value(values, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**values)


def test_value_of_another_kind_is_refused_with_its_path():
    with pytest.raises(
        settings.SettingsError, match=r"class_weights: expected dict\[str, float\] or .*got int 3"
    ):
        settings.from_dict(LossConfig, {"class_weights": 3})
    with pytest.raises(
        settings.SettingsError, match=r"class_weights\.water: expected float, got str 'much'"
    ):
        settings.from_dict(LossConfig, {"class_weights": {"water": "much"}})
