import math

import numpy as np
import pytest
import tensorflow as tf

from models.losses import MaskedCrossentropy, global_weight, pixel_crossentropy
from tests.data.networks.pair_loss import pair_loss


def unit_rows(rng, shape):
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def pair_loss_by_loops(s1, s2, temperature, weights=None):
    num = len(s1)
    weights = np.ones(num) if weights is None else weights
    total = 0.0
    for i in range(num):
        for queries, keys in ((s1, s2), (s2, s1)):
            scores = [float(np.dot(queries[i], keys[j])) / temperature for j in range(num)]
            total += (
                0.5 * weights[i] * (math.log(sum(math.exp(score) for score in scores)) - scores[i])
            )
    return total / sum(weights)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("weights", [None, np.array([1.0, 0.5, 0.0, 0.25, 1.0], np.float32)])
def test_pair_loss_equals_loops_over_pairs(temperature, weights):
    rng = np.random.default_rng(0)
    s1, s2 = unit_rows(rng, (5, 4)), unit_rows(rng, (5, 4))
    assert float(pair_loss(s1, s2, temperature, weights)) == pytest.approx(
        pair_loss_by_loops(s1, s2, temperature, weights), rel=1e-5
    )


def test_losses_survive_their_config():
    loss = MaskedCrossentropy((1.0, 2.5), focal_gamma=2.0, name="other")
    copy = MaskedCrossentropy.from_config(loss.get_config())
    assert (copy.name, copy.class_weights, copy.focal_gamma) == ("other", (1.0, 2.5), 2.0)


def crossentropy_by_loops(label, logits, weights=None):
    losses, counts = [], []
    for index in np.ndindex(label.shape):
        if label[index] != 255:
            row = logits[index].astype(np.float64)
            losses.append(np.log(np.exp(row).sum()) - row[label[index]])
            counts.append(1.0 if weights is None else weights[index[0]])
    return float(np.average(losses, weights=counts)) if losses else 0.0


def test_masked_crossentropy_equals_loops_over_labelled_pixels():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    label = rng.choice([0, 1, 2, 3, 4, 5, 255], (3, 4, 5)).astype(np.uint8)
    # Very uneven: a mean of per-patch means would give another number.
    label[0] = 255
    label[0, 0, 0] = 2
    assert float(MaskedCrossentropy()(label, logits)) == pytest.approx(
        crossentropy_by_loops(label, logits), rel=1e-5
    )


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_pixel_crossentropy_and_its_gradient_are_tensorflows(scale):
    rng = np.random.default_rng(3)
    logits = tf.constant(scale * rng.normal(size=(2, 5, 4, 3)), tf.float32)
    ids, upstream = (
        rng.integers(0, 3, (2, 5, 4)),
        tf.constant(rng.normal(size=(2, 5, 4)), tf.float32),
    )
    found = []
    for function in (
        lambda values: pixel_crossentropy(values, tf.one_hot(ids, 3)),
        lambda values: tf.nn.sparse_softmax_cross_entropy_with_logits(ids, values),
    ):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = function(logits)
        found.append((loss.numpy(), tape.gradient(loss, logits, upstream).numpy()))
    for value, known in zip(*found, strict=True):
        np.testing.assert_allclose(value, known, rtol=1e-5, atol=1e-5)


def test_masked_crossentropy_without_any_label_is_zero_with_zero_gradient():
    logits = tf.Variable(np.random.default_rng(4).normal(size=(2, 3, 3, 2)).astype(np.float32))
    with tf.GradientTape() as tape:
        loss = MaskedCrossentropy()(np.full((2, 3, 3), 255, np.uint8), logits)
    assert float(loss) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, logits).numpy(), np.zeros((2, 3, 3, 2)))


def test_masked_crossentropy_does_not_see_ignored_pixels():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    label = rng.integers(0, 3, (1, 4, 4)).astype(np.uint8)
    label[0, :2] = 255
    other = logits.copy()
    other[0, :2] = 1e4
    assert float(MaskedCrossentropy()(label, logits)) == float(MaskedCrossentropy()(label, other))


WEIGHTS = np.array([1.0, 0.25, 0.0, 0.5, 1.0], np.float32)


def uneven_labels(rng):
    label = rng.choice([0, 1, 2, 255], (5, 4, 3)).astype(np.uint8)
    label[1] = 255
    label[3, 1:] = 255
    return label


def test_weighted_crossentropy_equals_loops_in_which_each_pixel_counts_the_weight_of_its_patch():
    rng = np.random.default_rng(7)
    label, logits = uneven_labels(rng), rng.normal(size=(5, 4, 3, 3)).astype(np.float32)
    weight = global_weight(WEIGHTS, MaskedCrossentropy().size(label))
    loss = MaskedCrossentropy()(label, logits, sample_weight=weight)
    assert float(loss) == pytest.approx(crossentropy_by_loops(label, logits, WEIGHTS), rel=1e-5)


def test_weights_of_1_change_no_bit_of_the_loss():
    rng = np.random.default_rng(8)
    for _ in range(20):
        ones = np.ones(5, np.float32)
        label, logits = uneven_labels(rng), rng.normal(size=(5, 4, 3, 3)).astype(np.float32)
        loss = MaskedCrossentropy()
        weight = global_weight(ones, loss.size(label))
        assert loss(label, logits).numpy() == loss(label, logits, sample_weight=weight).numpy()


def test_a_batch_in_which_nothing_counts_has_no_loss():
    rng = np.random.default_rng(9)
    label, logits = uneven_labels(rng), rng.normal(size=(5, 4, 3, 3)).astype(np.float32)
    loss = MaskedCrossentropy()
    weight = global_weight(np.zeros(5), loss.size(label))
    assert float(loss(label, logits, sample_weight=weight)) == 0.0
