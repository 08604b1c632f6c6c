"""The loss of a student against its teacher.

Input: logits of both and pixel weights of one replica's patches. Output: this replica's
part of the loss. The parts of all replicas add up to the loss of the global batch, and
so do their gradients.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.training import replicas


def distillation_loss(
    teacher_logits: Any, student_logits: Any, weight: Any, temperature: float
) -> tf.Tensor:
    """Return the weighted mean cross-entropy against the teacher's probabilities.

    The mean is over the pixels of the global batch:
    temperature² x sum(w x -sum_k p_k log q_k) / sum(w), where p and q are the softmax
    of the teacher's and the student's logits divided by `temperature`. The factor keeps
    the size of the gradients independent of the temperature. The minimum is at q = p,
    with gradient 0 and the value temperature² x the entropy of p. No gradient flows to
    the teacher.
    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.

    Args:
        teacher_logits: [B, H, W, K].
        student_logits: [B, H, W, K].
        weight: float32 [B, H, W], at least 0; only ratios matter.
        temperature: above 0.

    Returns:
        float32 scalar; 0 when nothing counts.
    """
    target = tf.nn.softmax(tf.stop_gradient(tf.cast(teacher_logits, tf.float32)) / temperature)
    loss = tf.nn.softmax_cross_entropy_with_logits(
        target, tf.cast(student_logits, tf.float32) / temperature
    )
    return temperature**2 * _mean(loss, weight)


def agreement(teacher_logits: Any, student_logits: Any, weight: Any) -> tf.Tensor:
    """Return this replica's part of the share of pixels with the same likeliest class.

    Pixels with weight 0 are not counted. The arguments are those of
    `distillation_loss`.
    """
    is_same = tf.argmax(teacher_logits, axis=-1) == tf.argmax(student_logits, axis=-1)
    return _mean(tf.cast(is_same, tf.float32), tf.cast(weight > 0.0, tf.float32))


def _mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return this replica's part of the weighted mean over the global batch."""
    total = replicas.sum_over_replicas(tf.reduce_sum(weight))
    return tf.math.divide_no_nan(tf.reduce_sum(values * weight), total)
