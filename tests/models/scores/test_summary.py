import dataclasses

import numpy as np
import pytest

from models.scores.patch_scores import select
from models.scores.summary import interval, summarize
from tests.data.networks import make_scores


def iou_of(cm, k):
    """IoU of class k of a matrix, in words."""
    union = cm[k].sum() + cm[:, k].sum() - cm[k, k]
    return cm[k, k] / union if union else None


@pytest.mark.parametrize("num_classes", [2, 4])
def test_scores_equal_a_loop_over_patches(num_classes):
    scores = make_scores.make_scores(num_classes)
    # One class is missing from some patches and another is only ever predicted in one.
    scores.confusion[:5, 1] = scores.confusion[:4, :, 1] = 0
    got = summarize(scores)
    pooled = sum(scores.confusion)
    for k, name in enumerate(scores.class_names):
        each = [iou for iou in (iou_of(cm, k) for cm in scores.confusion) if iou is not None]
        assert got[f"mean_patch_iou/{name}"] == pytest.approx(sum(each) / len(each))
        assert got[f"pooled_iou/{name}"] == pytest.approx(iou_of(pooled, k))
        precision, recall = pooled[k, k] / pooled[:, k].sum(), pooled[k, k] / pooled[k].sum()
        assert got[f"precision/{name}"] == pytest.approx(precision)
        assert got[f"recall/{name}"] == pytest.approx(recall)
        assert got[f"f1/{name}"] == pytest.approx(2 * precision * recall / (precision + recall))
    assert got["mean_iou"] == pytest.approx(
        np.mean([iou_of(pooled, k) for k in range(num_classes)])
    )
    assert got["pixel_accuracy"] == pytest.approx(
        sum(pooled[k, k] for k in range(num_classes)) / pooled.sum()
    )
    assert got["loss"] == pytest.approx(scores.loss.sum() / pooled.sum())
    # The one patch without the class counts nowhere; the pooled and the mean score
    # differ.
    assert got["mean_patch_iou/class1"] != pytest.approx(got["pooled_iou/class1"], abs=1e-4)


def test_patch_where_a_class_is_only_predicted_counts_zero():
    scores = select(make_scores.make_scores(), np.array([0, 1]))
    confusion = np.array([[[3, 1], [0, 0]], [[0, 0], [0, 4]]])
    got = summarize(dataclasses.replace(scores, confusion=confusion))
    assert got["mean_patch_iou/class1"] == pytest.approx((0.0 + 1.0) / 2)
    assert got["mean_patch_iou/class0"] == pytest.approx(3 / 4)


def test_nothing_counted_gives_nan():
    got = summarize(select(make_scores.make_scores(), np.array([3])))
    assert all(np.isnan(value) for value in got.values())


def test_interval_holds_the_value_and_narrows_with_more_blocks():
    widths = []
    for num_blocks in (10, 160):
        scores = make_scores.make_scores(num_patches=2 * num_blocks, num_blocks=num_blocks)
        found = interval(scores, "pooled_iou/class1")
        assert found.value == summarize(scores)["pooled_iou/class1"]
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.5)


def test_interval_uses_only_draws_that_hold_the_class():
    scores = make_scores.make_scores(num_patches=12, num_blocks=12)
    scores.confusion[1:, 1] = scores.confusion[1:, :, 1] = 0
    found = interval(scores, "pooled_iou/class1")
    assert found.low == found.high == found.value


def test_few_blocks_have_no_interval():
    found = interval(make_scores.make_scores(num_blocks=4), "mean_iou")
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high]).all()
