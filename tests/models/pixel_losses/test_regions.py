import numpy as np
import pytest
import tensorflow as tf

from models.pixel_losses.regions import lovasz_softmax, soft_dice

WEIGHTS = np.array([1.0, 0.25, 0.0, 0.5, 1.0], np.float32)
NUM_CLASSES = 4


def softmax(row):
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def uneven(rng):
    """Return labels: class 3 in one patch only, one patch without labels, one with few."""
    label = rng.choice([0, 1, 2, 255], (5, 4, 3)).astype(np.uint8)
    label[1] = 255
    label[3, 1:] = 255
    label[3, 0] = 0
    label[4, 2, 1] = 3
    return label, 2.0 * rng.normal(size=(5, 4, 3, NUM_CLASSES)).astype(np.float32)


def dice_by_loops(label, logits, weights):
    losses = []
    for c in range(NUM_CLASSES):
        overlap = total = num_true = 0.0
        for index in np.ndindex(label.shape):
            if label[index] == 255:
                continue
            weight, p = weights[index[0]], softmax(logits[index].astype(np.float64))[c]
            is_true = float(label[index] == c)
            overlap += weight * is_true * p
            total += weight * (is_true + p)
            num_true += weight * is_true
        if num_true > 0:
            losses.append(1.0 - 2.0 * overlap / total)
    return float(np.mean(losses)) if losses else 0.0


def iou_loss(missed, found_wrongly, num_true):
    """1 - IoU of a class when some of its pixels are missed and some of others are taken for it."""
    return 1.0 - (num_true - missed) / (num_true + found_wrongly)


def lovasz_by_loops(label, logits, weights):
    """By the definition: pixels become wrong in the order of their errors; add up the costs."""
    total = sum_of_weights = 0.0
    for i in range(len(label)):
        pixels = [index for index in np.ndindex(label.shape[1:]) if label[i][index] != 255]
        losses = []
        for c in sorted({int(label[i][index]) for index in pixels}):
            num_true = sum(label[i][index] == c for index in pixels)
            entries = []
            for index in pixels:
                is_true = bool(label[i][index] == c)
                entries.append(
                    (abs(is_true - softmax(logits[i][index].astype(np.float64))[c]), is_true)
                )
            loss, missed, wrong = 0.0, 0, 0
            for error, is_true in sorted(entries, reverse=True):
                before = iou_loss(missed, wrong, num_true)
                missed, wrong = missed + is_true, wrong + (not is_true)
                loss += error * (iou_loss(missed, wrong, num_true) - before)
            losses.append(loss)
        if losses:
            total += weights[i] * np.mean(losses)
            sum_of_weights += weights[i]
    return float(total / sum_of_weights) if sum_of_weights else 0.0


ORACLES = [(soft_dice, dice_by_loops), (lovasz_softmax, lovasz_by_loops)]


@pytest.mark.parametrize(("loss", "oracle"), ORACLES)
@pytest.mark.parametrize("weights", [np.ones(5, np.float32), WEIGHTS])
def test_loss_equals_loops_over_labelled_pixels(loss, oracle, weights):
    label, logits = uneven(np.random.default_rng(0))
    assert float(loss(label, logits, weights)) == pytest.approx(
        oracle(label, logits, weights), rel=1e-5
    )
    assert 0.2 < oracle(label, logits, weights) < 1.0


@pytest.mark.parametrize("loss", [soft_dice, lovasz_softmax])
def test_perfect_answer_costs_nothing_and_the_opposite_all(loss):
    label = np.random.default_rng(1).integers(0, 2, (2, 4, 4)).astype(np.uint8)
    label[0, 0] = 255
    right = 50.0 * np.eye(2, dtype=np.float32)[np.where(label == 255, 0, label)]
    assert float(loss(label, right, np.ones(2))) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(label, -right, np.ones(2))) == pytest.approx(1.0, abs=1e-6)


def test_lovasz_of_a_hard_answer_is_its_iou_loss():
    label = np.array([[[0, 0, 0, 1, 1, 1, 1, 1]]], np.uint8)
    predicted = np.array([[[0, 1, 0, 1, 1, 0, 1, 1]]])
    logits = 80.0 * np.eye(2, dtype=np.float32)[predicted]
    # Class 0: 2 of 4 pixels in the union; class 1: 4 of 6.
    assert float(lovasz_softmax(label, logits, np.ones(1))) == pytest.approx(
        1.0 - (2 / 4 + 4 / 6) / 2, rel=1e-5
    )


@pytest.mark.parametrize("loss", [soft_dice, lovasz_softmax])
def test_ignored_pixels_have_no_say_and_no_gradient(loss):
    label, logits = uneven(np.random.default_rng(2))
    other = logits.copy()
    other[label == 255] = 1e4
    assert float(loss(label, logits, WEIGHTS)) == float(loss(label, other, WEIGHTS))
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(label, variable, np.ones(5))
    gradient = tape.gradient(value, variable).numpy()
    np.testing.assert_array_equal(gradient[label == 255], 0.0)
    assert np.abs(gradient[label != 255]).max() > 1e-3


@pytest.mark.parametrize("loss", [soft_dice, lovasz_softmax])
def test_gradient_is_the_slope_of_the_loss(loss):
    rng = np.random.default_rng(3)
    label, logits = uneven(rng)
    direction = rng.normal(size=logits.shape).astype(np.float32)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(label, variable, WEIGHTS)
    slope = float(tf.reduce_sum(tape.gradient(value, variable) * direction))
    step = 1e-3
    ahead, behind = (
        float(loss(label, logits + sign * step * direction, WEIGHTS)) for sign in (1, -1)
    )
    assert slope == pytest.approx((ahead - behind) / (2 * step), abs=5e-4)
    assert abs(slope) > 1e-3


@pytest.mark.parametrize("loss", [soft_dice, lovasz_softmax])
def test_batch_without_labels_has_no_loss_and_no_gradient(loss):
    logits = tf.Variable(np.random.default_rng(4).normal(size=(2, 3, 3, 2)).astype(np.float32))
    with tf.GradientTape() as tape:
        value = loss(np.full((2, 3, 3), 255, np.uint8), logits, np.ones(2))
    assert float(value) == 0.0
    np.testing.assert_array_equal(tape.gradient(value, logits), np.zeros((2, 3, 3, 2)))
