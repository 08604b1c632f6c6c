import numpy as np
import pytest

from models import metrics


def naive_confusion(truth, prediction, num_classes):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
        if t != 255 and p != 255:
            counts[t, p] += 1
    return counts


@pytest.fixture(scope="module")
def masks():
    rng = np.random.default_rng(0)
    truth, prediction = (
        rng.choice([*range(9), 255], (3, 17, 11)).astype(np.uint8) for _ in range(2)
    )
    return truth, prediction


def test_confusion_matrix_equals_naive_loop(masks):
    expected = naive_confusion(*masks, 9)
    got = metrics.confusion_matrix(*masks, 9)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)


def test_confusion_matrix_ignores_255_in_truth_and_in_prediction():
    truth, prediction = np.array([0, 255, 1, 1], np.uint8), np.array([0, 1, 255, 0], np.int32)
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, prediction, 2), [[1, 0], [1, 0]])


def test_scores_of_a_matrix_worked_out_by_hand():
    cm = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(metrics.iou_per_class(cm), [6 / 9, 3 / 6, np.nan])
    np.testing.assert_allclose(metrics.f1_per_class(cm), [12 / 15, 6 / 9, np.nan])
    assert metrics.mean_iou(cm) == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert metrics.pixel_accuracy(cm) == pytest.approx(9 / 12)
    np.testing.assert_allclose(metrics.precision_per_class(cm), [6 / 7, 3 / 5, np.nan])
    np.testing.assert_allclose(metrics.recall_per_class(cm), [6 / 8, 3 / 4, np.nan])


def test_many_matrices_are_each_scored_on_their_own():
    matrices = np.random.default_rng(1).integers(0, 5, (2, 3, 4, 4))
    matrices[0, 1] = 0
    for score in (
        metrics.iou_per_class,
        metrics.mean_iou,
        metrics.f1_per_class,
        metrics.pixel_accuracy,
    ):
        expected = [[score(cm) for cm in row] for row in matrices]
        np.testing.assert_array_equal(score(matrices), expected)


def test_class_that_is_only_predicted_counts_as_zero_in_the_mean():
    cm = np.array([[3, 1], [0, 0]])
    np.testing.assert_allclose(metrics.iou_per_class(cm), [0.75, 0.0])
    assert metrics.mean_iou(cm) == pytest.approx(0.375)


def test_nothing_counted_gives_nan_not_zero():
    cm = metrics.confusion_matrix(np.full((4,), 255, np.uint8), np.zeros(4, np.uint8), 2)
    assert cm.sum() == 0
    assert np.isnan(metrics.mean_iou(cm))
    assert np.isnan(metrics.pixel_accuracy(cm))


def test_confusion_matrix_refuses_unknown_ids_and_unequal_shapes():
    with pytest.raises(ValueError, match=r"prediction ids must be 0\.\.1 or 255, got 0\.\.2"):
        metrics.confusion_matrix(np.array([0, 1]), np.array([2, 0]), 2)
    with pytest.raises(ValueError, match="one shape"):
        metrics.confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int), 2)
