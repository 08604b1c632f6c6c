import numpy as np
import pytest
import tensorflow as tf

from models.losses import MaskedCrossentropy
from models.pixel_losses.config import LossConfig
from models.pixel_losses.regions import lovasz_softmax, soft_dice
from models.pixel_losses.segment_loss import class_weights, make_segment_loss

NAMES = ("dry", "water", "snow")
COUNTS = {"0": 60, "1": 30, "2": 10, "255": 500}
WEIGHTS = np.array([1.0, 0.25, 0.0, 0.5, 1.0], np.float32)


def uneven():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 1, 2, 255], (5, 4, 3), p=[0.5, 0.2, 0.1, 0.2]).astype(np.uint8)
    label[1] = 255
    return label, rng.normal(size=(5, 4, 3, 3)).astype(np.float32)


def focal_by_loops(label, logits, patch_weights, weights, gamma):
    total = sum_of_weights = 0.0
    for index in np.ndindex(label.shape):
        if label[index] != 255:
            row = logits[index].astype(np.float64)
            p = np.exp(row[label[index]]) / np.exp(row).sum()
            weight = patch_weights[index[0]] * weights[label[index]]
            total += weight * (1.0 - p) ** gamma * -np.log(p)
            sum_of_weights += weight
    return total / sum_of_weights


def test_balanced_weights_give_each_class_the_same_share():
    weights = class_weights(LossConfig(class_weights="balanced"), NAMES, COUNTS)
    assert weights == pytest.approx((100 / 180, 100 / 90, 100 / 30))
    # Over the train split each class then adds up to the same.
    assert [w * COUNTS[str(i)] for i, w in enumerate(weights)] == pytest.approx([100 / 3] * 3)


def test_weights_by_name_are_in_the_order_of_the_ids_and_1_where_none_is_given():
    assert class_weights(LossConfig(class_weights={"snow": 4.0, "dry": 0.5}), NAMES, {}) == (
        0.5,
        1.0,
        4.0,
    )
    assert class_weights(LossConfig(), NAMES, COUNTS) is None


def test_class_that_cannot_be_weighted_is_named():
    config = LossConfig(class_weights="balanced")
    with pytest.raises(
        ValueError, match=r"pixels of every class in the train split, got none of water, snow$"
    ):
        class_weights(config, NAMES, {"0": 60, "2": 0})
    with pytest.raises(ValueError, match="must name classes of dry, water, snow, got 'ice'"):
        class_weights(LossConfig(class_weights={"ice": 2.0}), NAMES, COUNTS)


@pytest.mark.parametrize("weights", [{}, {"water": 3.0, "snow": 0.1}, "balanced"])
@pytest.mark.parametrize(
    ("terms", "gamma"), [({"crossentropy": 1.0}, 0.0), ({"focal": 1.0}, 2.0), ({"focal": 1.0}, 0.5)]
)
def test_pixel_losses_equal_loops_over_labelled_pixels(terms, gamma, weights):
    label, logits = uneven()
    config = LossConfig(terms=terms, focal_gamma=gamma, class_weights=weights)
    of_class = class_weights(config, NAMES, COUNTS) or (1.0, 1.0, 1.0)
    parts = make_segment_loss(config, NAMES, COUNTS)(label, logits, WEIGHTS)
    assert set(parts) == {"loss"}
    expected = focal_by_loops(label, logits, WEIGHTS, of_class, gamma)
    assert float(parts["loss"]) == pytest.approx(expected, rel=1e-5)


def test_sum_of_losses_is_weighted_and_tells_its_terms():
    label, logits = uneven()
    config = LossConfig(terms={"crossentropy": 0.5, "dice": 2.0, "lovasz": 0.25})
    parts = make_segment_loss(config, NAMES, COUNTS)(label, logits, np.ones(5, np.float32))
    terms = [
        MaskedCrossentropy()(label, logits),
        soft_dice(label, logits, np.ones(5)),
        lovasz_softmax(label, logits, np.ones(5)),
    ]
    names = ("loss_crossentropy", "loss_dice", "loss_lovasz")
    assert [float(parts[name]) for name in names] == pytest.approx(
        [float(term) for term in terms], rel=1e-6
    )
    assert float(parts["loss"]) == pytest.approx(
        sum(w * float(t) for w, t in zip((0.5, 2.0, 0.25), terms, strict=True))
    )


def test_default_is_the_plain_crossentropy_to_the_last_bit():
    label, logits = uneven()
    parts = make_segment_loss(LossConfig(), NAMES, COUNTS)(label, logits, np.ones(5, np.float32))
    assert parts["loss"].numpy() == MaskedCrossentropy()(label, logits).numpy()


def test_focal_loss_of_a_sure_answer_has_a_finite_gradient():
    logits = tf.Variable([[[[200.0, 0.0, 0.0]]]])
    loss = make_segment_loss(LossConfig(terms={"focal": 1.0}, focal_gamma=0.5), NAMES, COUNTS)
    with tf.GradientTape() as tape:
        value = loss(np.zeros((1, 1, 1), np.uint8), logits, np.ones(1, np.float32))["loss"]
    assert float(value) == 0.0
    assert np.isfinite(tape.gradient(value, logits)).all()
