import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

from models.distillation.loss import agreement, distillation_loss

SHAPE = (2, 5, 4, 3)


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    teacher, student = (rng.normal(0.0, 2.0, SHAPE).astype(np.float32) for _ in range(2))
    weight = rng.uniform(0.1, 3.0, SHAPE[:3]).astype(np.float32)
    weight[rng.random(SHAPE[:3]) < 0.3] = 0.0
    return teacher, student, weight


def loss_and_gradient(teacher, student, weight, temperature):
    teacher, student = tf.constant(teacher), tf.constant(student)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([teacher, student])
        loss = distillation_loss(teacher, student, tf.constant(weight), temperature)
    assert tape.gradient(loss, teacher) is None
    return float(loss), tape.gradient(loss, student).numpy()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_student_that_equals_its_teacher_has_the_entropy_for_loss_and_no_gradient(
    values, temperature
):
    teacher, _, weight = values
    # Logits that differ by a constant per pixel give the same probabilities.
    loss, gradient = loss_and_gradient(teacher, teacher + weight[..., None], weight, temperature)
    entropy = stats.entropy(
        special.softmax(teacher.astype(np.float64) / temperature, axis=-1), axis=-1
    )
    assert loss == pytest.approx(temperature**2 * np.average(entropy, weights=weight), rel=1e-5)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_loss_and_gradient_equal_their_formulas(values, temperature):
    teacher, student, weight = values
    loss, gradient = loss_and_gradient(teacher, student, weight, temperature)
    p, q = (
        special.softmax(logits.astype(np.float64) / temperature, axis=-1)
        for logits in (teacher, student)
    )
    expected = temperature**2 * np.average(-(p * np.log(q)).sum(axis=-1), weights=weight)
    assert loss == pytest.approx(expected, rel=1e-5)
    share = (weight / weight.sum(dtype=np.float64))[..., None]
    np.testing.assert_allclose(gradient, temperature * share * (q - p), atol=1e-7)
    assert np.abs(gradient).max() > 1e-3


def test_pixels_without_weight_do_not_count_and_nothing_is_0(values):
    teacher, student, weight = values
    other = np.where(weight[..., None] > 0, teacher, 50.0).astype(np.float32)
    np.testing.assert_allclose(
        distillation_loss(other, student, weight, 2.0),
        distillation_loss(teacher, student, weight, 2.0),
    )
    assert float(distillation_loss(teacher, student, np.zeros_like(weight), 1.0)) == 0.0


def test_agreement_is_the_share_of_counted_pixels_with_the_same_likeliest_class(values):
    teacher, student, weight = values
    same = (teacher.argmax(axis=-1) == student.argmax(axis=-1))[weight > 0]
    assert 0.1 < same.mean() < 0.9
    assert float(agreement(teacher, student, weight)) == pytest.approx(same.mean(), rel=1e-6)
