import json

import pytest

from beam_jobs.contracts.labels import DYNAMIC_WORLD, WATER
from components import evaluation


def test_thresholds_bind_the_overall_slice_and_only_the_named_metrics():
    config = evaluation.create_eval_config(WATER, min_mean_iou=0.5, min_iou={"water": 0.25})
    (spec,) = config.metrics_specs
    bounds = {}
    for metric in spec.metrics:
        assert not metric.HasField("threshold")
        for item in metric.per_slice_thresholds:
            assert [list(slicing.feature_keys) for slicing in item.slicing_specs] == [[]]
            bounds[json.loads(metric.config)["name"]] = (
                item.threshold.value_threshold.lower_bound.value
            )
    assert bounds == {
        "mean_iou": 0.5,
        "pooled_iou/water": 0.25,
        "num_pixels/dry": 1.0,
        "num_pixels/water": 1.0,
    }
    assert [list(item.feature_keys) for item in config.slicing_specs] == [[], ["orbit_state"]]


def test_every_class_of_the_schema_has_its_metric():
    (spec,) = evaluation.create_eval_config(DYNAMIC_WORLD, 0.0, {}).metrics_specs
    names = [json.loads(metric.config)["name"] for metric in spec.metrics]
    assert names[0] == "mean_iou"
    assert names[1::2] == [f"pooled_iou/{name}" for name in DYNAMIC_WORLD.class_names]
    assert names[2::2] == [f"num_pixels/{name}" for name in DYNAMIC_WORLD.class_names]


def test_only_needed_classes_must_have_a_pixel():
    (spec,) = evaluation.create_eval_config(DYNAMIC_WORLD, 0.0, {}, ("water",)).metrics_specs
    names = [json.loads(metric.config)["name"] for metric in spec.metrics]
    assert [name for name in names if name.startswith("num_pixels")] == ["num_pixels/water"]


def test_threshold_on_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match=r"min_iou: \['snow'\] are no classes of 'water'"):
        evaluation.create_eval_config(WATER, 0.0, {"snow": 0.1})


@pytest.mark.parametrize("splits", [("train",), (), ("test", "holdout")])
def test_evaluating_what_training_saw_is_refused(splits):
    with pytest.raises(ValueError, match="splits to evaluate must be among"):
        evaluation.create_evaluator(
            "flood", None, None, evaluation.create_eval_config(WATER, 0.0, {}), splits
        )
