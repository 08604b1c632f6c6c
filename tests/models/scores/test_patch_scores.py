"""Pooled scores: patches of several models, one after the other."""

import dataclasses
import math

import numpy as np
import pytest

from models.scores import calibration
from models.scores.patch_scores import concatenate, select
from models.scores.score_document import make_document
from models.scores.score_file import read_scores, write_scores
from models.scores.summary import interval, summarize
from tests.data.networks import make_scores


@pytest.mark.parametrize("num_classes", [2, 3])
def test_parts_of_scores_put_together_are_the_scores(num_classes):
    whole = make_scores.make_scores(num_classes, num_patches=24, num_blocks=8)
    parts = [select(whole, np.arange(start, stop)) for start, stop in ((0, 5), (5, 6), (6, 24))]
    joined = concatenate(parts)
    assert joined.threshold == whole.threshold
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(joined.arrays()[name], array, err_msg=name)
    assert summarize(joined) == summarize(whole)
    assert interval(joined, "mean_iou") == interval(whole, "mean_iou")
    # Pooled is not the mean of the parts: they have different numbers of pixels.
    means = [summarize(part)["mean_iou"] for part in parts]
    assert summarize(joined)["mean_iou"] != pytest.approx(np.nanmean(means), abs=1e-4)


def test_each_part_keeps_the_counts_at_its_own_threshold(tmp_path):
    parts = [
        calibration.at_threshold(make_scores.make_scores(seed=seed), threshold)
        for seed, threshold in ((1, 0.2), (2, 0.7))
    ]
    joined = concatenate(parts)
    assert math.isnan(joined.threshold)
    expected = sum(
        calibration.threshold_confusion(part.probability_counts[:, 0], part.threshold).sum(axis=0)
        for part in parts
    )
    np.testing.assert_array_equal(joined.confusion.sum(axis=0), expected)
    assert make_document(joined, "test")["threshold"] is None
    write_scores(tmp_path / "scores.npz", joined)
    assert math.isnan(read_scores(tmp_path / "scores.npz").threshold)


def test_scores_of_other_classes_cannot_be_pooled():
    one = make_scores.make_scores()
    other = dataclasses.replace(one, class_names=("dry", "water"))
    with pytest.raises(ValueError, match="parts must be at least one, all of the same classes"):
        concatenate([one, other])
    with pytest.raises(ValueError, match=r"of the same classes, got \[\]"):
        concatenate([])
