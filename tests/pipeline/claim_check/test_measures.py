"""Tables of arms against loops, and floors that are known in closed form."""

import numpy as np
import pytest

from models import metrics
from models.scores.calibration import best_threshold, threshold_confusion
from models.scores.ranking import average_precision
from pipeline.claim_check import measures
from pipeline.claim_check.measures import MEASURES
from tests.data.networks import make_scores


def tables_of(name, num_classes=2, seed=0):
    scores = make_scores.make_scores(num_classes=num_classes, seed=seed)
    return np.stack([measures.by_unit(MEASURES[name].table(scores), scores.block)] * 2)


def score(name, tables):
    statistic = MEASURES[name].statistic(tables, 2)
    return statistic(tables.sum(axis=(0, 1)).reshape(1, -1))[0]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_scores_are_those_of_the_pooled_patches(num_classes):
    scores = make_scores.make_scores(num_classes=num_classes)
    pooled = metrics.mean_iou(scores.confusion.sum(axis=0))
    assert score("mean_iou", tables_of("mean_iou", num_classes)) == pytest.approx(pooled)
    pooled = average_precision(scores.probability_counts.sum(axis=0)).mean()
    found = score("average_precision", tables_of("average_precision", num_classes))
    assert found == pytest.approx(pooled)


def test_the_constant_answer_is_the_commonest_class_and_its_score_is_known():
    tables = tables_of("mean_iou", 4)
    shares = tables.sum(axis=(0, 1, 3)) / tables.sum()
    constant = measures.constant(tables, MEASURES["mean_iou"])
    assert score("mean_iou", constant) == pytest.approx(shares.max() / 4)
    tables = tables_of("average_precision")
    shares = tables.sum(axis=(0, 1, 4))[0] / tables.sum()
    constant = measures.constant(tables, MEASURES["average_precision"])
    assert score("average_precision", constant) == pytest.approx(shares[1])


def test_answers_at_random_keep_their_shares_and_forget_the_truth():
    for name in ("mean_iou", "average_precision"):
        tables = tables_of(name)
        found = measures.at_random(tables)
        np.testing.assert_allclose(found.sum(axis=(1, -2)), tables.sum(axis=(1, -2)))
        np.testing.assert_allclose(found.sum(axis=-1), tables.sum(axis=-1))
        assert score(name, found) < score(name, tables)


def test_the_threshold_comes_from_eval_and_not_from_test():
    test, on_eval = make_scores.make_scores(seed=1), make_scores.make_scores(seed=2)
    found = measures.tuned(test, on_eval)
    threshold = best_threshold(on_eval.probability_counts[:, 0])
    assert found.threshold == threshold != best_threshold(test.probability_counts[:, 0])
    expected = threshold_confusion(test.probability_counts[:, 0], threshold)
    np.testing.assert_array_equal(found.confusion, expected)
    four = make_scores.make_scores(num_classes=4)
    assert measures.tuned(four, on_eval) is four
