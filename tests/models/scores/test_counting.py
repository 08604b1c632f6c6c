import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.scores.counting import count_pixels
from models.scores.patch_scores import PROBABILITY_EDGES, NonFiniteScoresError
from tests.data.networks import make_scores


def loop_counts(truth, prediction, probabilities):
    """One pixel after the other, by the definitions alone."""
    num_classes = probabilities.shape[-1]
    confusion = np.zeros((num_classes, num_classes), np.int64)
    reliability = np.zeros((3, 15))
    ranked = [1] if num_classes == 2 else list(range(num_classes))
    probability_counts = np.zeros((len(ranked), 2, 100), np.int64)
    for t, p, chances in zip(
        truth.ravel(), prediction.ravel(), probabilities.reshape(-1, num_classes), strict=True
    ):
        if 255 in (t, p):
            continue
        confusion[t, p] += 1
        confidence, likeliest = max((float(chance), -k) for k, chance in enumerate(chances))
        index = next(i for i in range(15) if confidence <= (i + 1) / 15 or i == 14)
        reliability[:, index] += (1, -likeliest == t, confidence)
        for place, number in enumerate(ranked):
            chance = chances[number]
            edge = next(i for i in range(100) if chance <= PROBABILITY_EDGES[i + 1] or i == 99)
            probability_counts[place, int(t == number), edge] += 1
    return confusion, reliability, probability_counts


@pytest.mark.parametrize("num_classes", [2, 5])
def test_counts_equal_a_loop_over_pixels(num_classes):
    pixels = make_scores.make_pixels(np.random.default_rng(num_classes), num_classes, size=13)
    confusion, reliability, probability_counts = loop_counts(*pixels)
    got = count_pixels(*pixels)
    np.testing.assert_array_equal(got["confusion"], confusion)
    np.testing.assert_allclose(got["reliability"], reliability)
    np.testing.assert_array_equal(got["probability_counts"], probability_counts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 100)), min_size=1, max_size=30))
def test_probability_on_an_edge_lies_below_it_and_nothing_is_lost(pixels):
    truth = np.array([[t for t, _ in pixels]], np.uint8)
    second = PROBABILITY_EDGES[[edge for _, edge in pixels]][np.newaxis]
    counts = count_pixels(truth, truth, np.stack([1 - second, second], axis=-1))[
        "probability_counts"
    ][0]
    assert counts.sum() == len(pixels)
    for edge in range(1, 100):
        assert counts[:, edge:].sum() == (second > PROBABILITY_EDGES[edge]).sum()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_probabilities_that_are_not_finite_are_refused_where_they_count(bad):
    truth, prediction, probabilities = make_scores.make_pixels(np.random.default_rng(0), 3)
    probabilities[2, 4:6, 1] = bad
    truth[2, 4:6] = 255
    count_pixels(truth, prediction, probabilities)
    truth[2, 4:6], prediction[2, 4:6] = 0, 1
    with pytest.raises(NonFiniteScoresError, match=r"NaN or infinity at 2 of \d+ pixels"):
        count_pixels(truth, prediction, probabilities)


def test_id_that_is_no_class_is_refused():
    truth = np.full((1, 1), 7, np.uint8)
    with pytest.raises(ValueError, match=r"truth ids must be 0\.\.1 or 255, got 7\.\.7"):
        count_pixels(truth, np.zeros((1, 1), int), np.full((1, 1, 2), 0.5, np.float32))
