import numpy as np
import pytest
import tensorflow as tf

from models.augment import random_symmetry
from models.views import break_pairs, make_views

SEED = tf.constant([3, 0], tf.int64)


def batch(num_pairs=6):
    rng = np.random.default_rng(0)
    return {
        "s1": tf.constant(rng.normal(size=(num_pairs, 4, 4, 2))),
        "s2": tf.constant(rng.normal(size=(num_pairs, 4, 4, 3))),
        "lon": tf.range(float(num_pairs)),
    }


def test_views_are_copies_each_with_its_own_seed():
    original = batch()
    made = make_views(original, ("s1", "s1_a", "s1_b"), random_symmetry, SEED)
    assert set(made) == {"lon", "s1", "s1_a", "s1_b"}
    np.testing.assert_array_equal(made["s1"], original["s1"])
    np.testing.assert_array_equal(made["lon"], original["lon"])
    assert not np.array_equal(made["s1_a"], made["s1_b"])
    for view in ("s1_a", "s1_b"):
        np.testing.assert_array_equal(np.sort(np.ravel(made[view][0])), np.sort(np.ravel(original["s1"][0])))
    again = make_views(original, ("s1", "s1_a", "s1_b"), random_symmetry, SEED)
    np.testing.assert_array_equal(again["s1_b"], made["s1_b"])


@pytest.mark.parametrize("num_pairs", [2, 3, 7, 64])
def test_no_pair_stays_whole(num_pairs):
    original = batch(num_pairs)
    orders = []
    for step in range(5):
        broken = break_pairs(original, tf.constant([1, step], tf.int64))
        np.testing.assert_array_equal(broken["s1"], original["s1"])
        same = np.all(broken["s2"].numpy()[:, None] == original["s2"].numpy()[None], axis=(2, 3, 4))
        # Each image is used once, never for its own pair.
        np.testing.assert_array_equal(same.sum(axis=0), np.ones(num_pairs))
        assert not same.diagonal().any()
        orders.append(tuple(same.argmax(axis=1)))
    assert num_pairs == 2 or len(set(orders)) > 1
