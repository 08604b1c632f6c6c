import dataclasses

import numpy as np
import pytest

from models import metrics
from models.scores import calibration
from models.scores.counting import count_pixels
from tests.data.networks import make_scores


def reliability_of(confidence, hits):
    """Counts of pixels of one row: predicted class 1 with `confidence`, true in `hits`."""
    second = np.asarray(confidence, np.float32)[np.newaxis]
    truth = np.asarray(hits, np.uint8)[np.newaxis]
    return count_pixels(truth, np.ones_like(truth), np.stack([1 - second, second], axis=-1))[
        "reliability"
    ]


def test_error_of_a_calibrated_model_is_nearly_zero_and_of_an_overconfident_one_its_excess():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 200_000)
    assert (
        calibration.expected_calibration_error(
            reliability_of(confidence, rng.random(200_000) < confidence)
        )
        < 0.005
    )
    overconfident = reliability_of(confidence, rng.random(200_000) < confidence - 0.2)
    assert calibration.expected_calibration_error(overconfident) == pytest.approx(0.2, abs=0.005)


def test_error_and_curve_worked_out_by_hand():
    # Bins (12/15, 13/15] and (14/15, 1]: gaps |0.85 - 2/4| over 4 pixels and |0.95 - 1|
    # over 1.
    found = reliability_of([0.85] * 4 + [0.95], [1, 1, 0, 0, 1])
    assert calibration.expected_calibration_error(found) == pytest.approx((4 * 0.35 + 1 * 0.05) / 5)
    scores = make_scores.make_scores(num_patches=1)
    curve = calibration.reliability_curve(
        dataclasses.replace(scores, reliability=found[np.newaxis])
    )
    np.testing.assert_allclose(curve.confidence, [0.85, 0.95], rtol=1e-6)
    np.testing.assert_allclose(curve.accuracy, [0.5, 1.0])
    np.testing.assert_allclose(curve.share, [0.8, 0.2])


def test_error_of_nothing_is_nan_and_of_many_patches_each_its_own():
    scores = make_scores.make_scores()
    each = calibration.expected_calibration_error(scores.reliability)
    assert each.shape == (12,)
    assert np.isnan(each[3])
    assert each[0] == calibration.expected_calibration_error(scores.reliability[0])


@pytest.mark.parametrize("edge", [1, 7, 29, 50, 58, 99])
def test_confusion_at_a_threshold_equals_that_of_the_pixels(edge):
    rng = np.random.default_rng(edge)
    truth, prediction, probabilities = make_scores.make_pixels(rng, 2, size=40)
    # Probabilities on the edges themselves are where counts and model could part.
    probabilities[:20, :, 1] = np.float32(rng.integers(101, size=(20, 40)) / 100)
    counts = count_pixels(truth, prediction, probabilities)["probability_counts"][0]
    threshold = edge / 100
    cut = np.where(prediction == 255, 255, probabilities[..., 1] > np.float32(threshold))
    expected = metrics.confusion_matrix(truth, cut, 2)
    np.testing.assert_array_equal(calibration.threshold_confusion(counts, threshold), expected)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 0.505])
def test_threshold_between_edges_or_at_the_ends_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must be a multiple of 0\.01 between 0 and 1"):
        calibration.threshold_confusion(np.ones((2, 100), int), threshold)


def test_best_threshold_is_the_best_of_all_by_brute_force():
    scores = make_scores.make_scores(num_patches=20, seed=5)
    counts = scores.probability_counts[:, 0]
    iou = {
        edge / 100: metrics.iou_per_class(
            calibration.threshold_confusion(counts, edge / 100).sum(axis=0)
        )[1]
        for edge in range(1, 100)
    }
    found = calibration.best_threshold(counts)
    assert iou[found] == max(iou.values())
    assert found != 0.5


def test_best_threshold_of_equals_is_the_nearest_to_a_half_and_a_half_without_the_class():
    counts = np.zeros((1, 2, 100), np.int64)
    counts[0, 0, 9], counts[0, 1, 89] = 5, 5
    assert calibration.best_threshold(counts) == 0.5
    counts[0, 0, 69] = 5
    assert calibration.best_threshold(counts) == 0.7
    counts[0, 1] = 0
    assert calibration.best_threshold(counts) == 0.5
