import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma

from beam_jobs.contracts import labels, layout, records
from components import evaluation, iou_metrics

CLASSES = ((0, "dry", "#000001"), (1, "water", "#000002"), (2, "ice", "#000003"))
FROZEN = labels.own_schema(
    "frozen", [labels.LabelClass(id=i, name=name, color=color) for i, name, color in CLASSES]
)
"""Classes of the labels, and one that has no pixel."""


def read_patches(version, split):
    paths = [str(path) for path in layout.shard_paths(version, split)]
    return [
        records.decode(raw) for raw in tf.data.TFRecordDataset(paths, "GZIP").as_numpy_iterator()
    ]


def expected_iou(patches):
    """IoU per class of the rolling model by sets of pixels, without a confusion matrix."""
    truth = np.stack([patch.label for patch in patches]).astype(int)
    prediction = np.roll(truth, 3, axis=2)
    prediction[:, 0] = 255
    use = (truth != 255) & (prediction != 255)
    return [
        ((truth == k) & (prediction == k) & use).sum()
        / (((truth == k) | (prediction == k)) & use).sum()
        for k in (0, 1)
    ]


@pytest.fixture(scope="module")
def evaluated(evaluate, water_version, rolling_model, tmp_path_factory):
    """Results and validation of a TFMA run over test; the model does not reach the threshold."""
    output = str(tmp_path_factory.mktemp("evaluation"))
    config = evaluation.create_eval_config(FROZEN, min_mean_iou=0.01, min_iou={"water": 0.999})
    result = evaluate(rolling_model, water_version, config, output)
    return result, tfma.load_validation_result(output)


@pytest.mark.parametrize(
    "slice_key", [(), (("orbit_state", "ascending"),), (("orbit_state", "descending"),)]
)
def test_values_equal_the_numpy_oracle_on_every_slice(
    evaluated, values_of, water_version, slice_key
):
    patches = read_patches(water_version, "test")
    if slice_key:
        patches = [patch for patch in patches if patch.orbit_state == slice_key[0][1]]
    dry, water = expected_iou(patches)
    values = values_of(evaluated[0], slice_key)
    assert values["pooled_iou/dry"] == pytest.approx(dry)
    assert values["pooled_iou/water"] == pytest.approx(water)
    assert values["mean_iou"] == pytest.approx((dry + water) / 2)


def test_pixels_of_the_truth_are_counted_per_class(evaluated, values_of, water_version):
    truth = np.stack([patch.label for patch in read_patches(water_version, "test")])
    prediction = np.roll(truth, 3, axis=2)
    counted = truth[:, 1:][prediction[:, 1:] != 255]
    values = values_of(evaluated[0], ())
    assert values["num_pixels/dry"] == (counted == 0).sum()
    assert values["num_pixels/water"] == (counted == 1).sum()
    assert values["num_pixels/ice"] == 0


def test_gate_names_only_the_metrics_that_are_too_low_and_only_on_the_overall_slice(
    evaluated, water_version
):
    validation = evaluated[1]
    assert not validation.validation_ok
    (failed_slice,) = validation.metric_validations_per_slice
    assert not failed_slice.slice_key.single_slice_keys
    failures = {failure.metric_key.name: failure for failure in failed_slice.failures}
    # A model is refused, too, that was never tested on one of its classes.
    assert set(failures) == {"pooled_iou/water", "num_pixels/ice"}
    failure = failures["pooled_iou/water"]
    assert failure.metric_value.double_value.value == pytest.approx(
        expected_iou(read_patches(water_version, "test"))[1]
    )


def test_absent_class_does_not_spoil_the_mean():
    key = iou_metrics.metric_types.MetricKey("x")
    combiner = iou_metrics.ConfusionMatrixCombiner(key, 3)
    merged = combiner.merge_accumulators(
        [combiner.add_input(combiner.create_accumulator(), np.diag([5, 0, 0])), np.diag([1, 3, 0])]
    )
    assert combiner.extract_output(merged)[key].tolist() == [[6, 0, 0], [0, 3, 0], [0, 0, 0]]
    matrix, derived = iou_metrics.MeanIoU(num_classes=3).computations()
    assert derived.result({matrix.keys[0]: merged}) == {derived.keys[0]: 1.0}
    matrix, derived = iou_metrics.IoU(
        num_classes=3, class_id=2, name="pooled_iou/gone"
    ).computations()
    assert np.isnan(derived.result({matrix.keys[0]: merged})[derived.keys[0]])


def test_preprocessor_refuses_a_label_of_another_size():
    extracts = {
        "features": {"label": b"\1" + b"\0" * 14, "height": np.array([4]), "width": np.array([4])},
        "predictions": {"label": np.zeros((4, 4), np.int32)},
    }
    with pytest.raises(ValueError, match="label holds 15 values, not height x width = 4 x 4"):
        next(iou_metrics.ConfusionMatrixPreprocessor(2).process(extracts))
