import math

import numpy as np
import pytest
import tensorflow as tf

from models.losses import MaskedCrossentropy, NTXentLoss


def unit_rows(rng, shape):
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def nt_xent_by_loops(s1, s2, temperature):
    num = len(s1)
    total = 0.0
    for i in range(num):
        for queries, keys in ((s1, s2), (s2, s1)):
            scores = [float(np.dot(queries[i], keys[j])) / temperature for j in range(num)]
            total += 0.5 * (math.log(sum(math.exp(score) for score in scores)) - scores[i])
    return total / num


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_equals_loops_over_pairs(temperature):
    rng = np.random.default_rng(0)
    s1, s2 = unit_rows(rng, (7, 5)), unit_rows(rng, (7, 5))
    assert float(NTXentLoss(temperature)(s1, s2)) == pytest.approx(nt_xent_by_loops(s1, s2, temperature), rel=1e-5)


def test_nt_xent_of_equal_embeddings_is_log_of_the_batch():
    same = np.tile(unit_rows(np.random.default_rng(1), (1, 4)), (6, 1))
    assert float(NTXentLoss(0.1)(same, same)) == pytest.approx(math.log(6), rel=1e-6)


def test_nt_xent_is_float32_and_finite_on_half_precision_embeddings():
    rng = np.random.default_rng(2)
    s1 = tf.cast(unit_rows(rng, (4, 8)), tf.bfloat16)
    loss = NTXentLoss(0.01)(s1, -s1)
    assert loss.dtype == tf.float32
    assert np.isfinite(float(loss))


def test_nt_xent_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        NTXentLoss(0.0)


def test_losses_survive_their_config():
    assert NTXentLoss.from_config(NTXentLoss(0.3).get_config()).temperature == 0.3
    assert MaskedCrossentropy.from_config(MaskedCrossentropy(name="other").get_config()).name == "other"


def crossentropy_by_loops(label, logits):
    losses = []
    for index in np.ndindex(label.shape):
        if label[index] != 255:
            row = logits[index].astype(np.float64)
            losses.append(np.log(np.exp(row).sum()) - row[label[index]])
    return float(np.mean(losses)) if losses else 0.0


def test_masked_crossentropy_equals_loops_over_labelled_pixels():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    label = rng.choice([0, 1, 2, 3, 4, 5, 255], (3, 4, 5)).astype(np.uint8)
    # Very uneven: a mean of per-patch means would give another number.
    label[0] = 255
    label[0, 0, 0] = 2
    assert float(MaskedCrossentropy()(label, logits)) == pytest.approx(crossentropy_by_loops(label, logits), rel=1e-5)


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
