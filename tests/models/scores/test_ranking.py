import numpy as np
import pytest

from models.scores.ranking import average_precision
from tests.data.networks import make_scores


def test_average_precision_equals_a_loop_over_thresholds():
    counts = make_scores.make_scores(num_classes=3).probability_counts.sum(axis=0)
    expected = []
    for below, above in counts:
        total, last_recall, area = above.sum(), 0.0, 0.0
        for edge in range(99, -1, -1):
            hits, alarms = above[edge:].sum(), below[edge:].sum()
            if hits:
                area += (hits / total - last_recall) * hits / (hits + alarms)
                last_recall = hits / total
        expected.append(area)
    assert average_precision(counts) == pytest.approx(expected)
    assert (average_precision(counts) > 0.5).all()


def test_ends_of_the_scale():
    perfect, silent, absent = np.zeros((3, 2, 100))
    perfect[0, 10], perfect[1, 90] = 30, 10
    # All pixels have one probability: precision is the share of the class.
    silent[:, 50] = 30, 10
    absent[0, 50] = 30
    found = average_precision(np.stack([perfect, silent, absent]))
    assert found == pytest.approx([1.0, 0.25, np.nan], nan_ok=True)


def test_labels_of_other_pixels_have_the_share_of_the_class():
    rng = np.random.default_rng(0)
    probability, truth = rng.integers(0, 100, 200_000), rng.random(200_000) < 0.3
    counts = np.stack(
        [np.bincount(probability[truth == is_true], minlength=100) for is_true in (0, 1)]
    )
    assert average_precision(counts) == pytest.approx(0.3, abs=0.01)
