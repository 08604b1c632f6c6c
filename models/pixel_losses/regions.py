"""Losses of whole regions: how far each class's predicted area is from its true one.

Input: labels, logits and weights of one replica's patches. Output: this replica's part
of the loss. The parts of all replicas add up to the loss of the global batch, and so do
their gradients.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from models.training import replicas


def soft_dice(label: Any, logits: Any, weight: Any) -> tf.Tensor:
    """Return 1 - the mean Dice coefficient of the classes in the global batch's labels.

    Dice of a class: 2 sum(w t p) / sum(w (t + p)) over all labelled pixels of the
    global batch; t is its truth (0 or 1), p its probability, w the weight of the patch.
    The sums are added over the replicas before the division, so the loss is exact on
    any number of replicas. A class without true pixels is left out: pixels that are
    wrongly predicted as that class already lower the Dice of their true class.
    Source: Milletari et al. 2016 (V-Net), arXiv 1606.04797, with the plain sums of
    Sudre et al. 2017, arXiv 1707.03237, in the denominator.

    Args:
        label: class ids [B, H, W], 0..K-1, 255 = ignore.
        logits: float32 [B, H, W, K].
        weight: float32 [B], weight of each patch, at least 0; only ratios matter.

    Returns:
        float32 scalar, 0-1 over all replicas; 0 when nothing is labelled.
    """
    truth, probabilities = _by_pixel(label, logits)  # [B, P, K] both
    weight = tf.cast(weight, tf.float32)[:, tf.newaxis]
    sums = tf.stack(
        [
            tf.reduce_sum(weight * tf.reduce_sum(values, axis=1), axis=0)
            for values in (truth * probabilities, truth, probabilities)
        ]
    )
    overlap, num_true, num_predicted = tf.unstack(replicas.sum_over_replicas(sums))  # [K] each
    missing = 1.0 - tf.math.divide_no_nan(2.0 * overlap, num_true + num_predicted)
    # `missing` is the same on every replica, so each returns its share.
    return _mean(missing, num_true > 0.0) / replicas.num_replicas()


def lovasz_softmax(label: Any, logits: Any, weight: Any) -> tf.Tensor:
    """Return the weighted mean over patches of the Lovász extension of 1 - IoU.

    The value of a patch is the mean over the classes in its labels. It does not depend
    on the other patches, so the loss is exact on any number of replicas. It is not the
    IoU of all pixels together, which would need the errors of all replicas in one
    order. A patch without labels does not count.
    Source: Berman et al. 2018, arXiv 1705.08790, algorithm 1, averaged per image and
    over the classes present.

    Args:
        label: class ids [B, H, W], 0..K-1, 255 = ignore.
        logits: float32 [B, H, W, K].
        weight: float32 [B], weight of each patch, at least 0; only ratios matter.

    Returns:
        float32 scalar, 0-1 over all replicas; 0 when nothing is labelled.
    """
    truth, probabilities = (
        tf.transpose(values, [0, 2, 1]) for values in _by_pixel(label, logits)
    )  # [B, K, P]
    # Ignored pixels are 0 in both. Their error is 0, so they come last in the order and
    # add nothing.
    errors = tf.abs(truth - probabilities)
    order = tf.argsort(tf.stop_gradient(errors), axis=-1, direction="DESCENDING")
    errors, is_true = tf.gather(errors, order, batch_dims=2), tf.gather(truth, order, batch_dims=2)
    num_true = tf.reduce_sum(truth, axis=-1, keepdims=True)
    # Loss of IoU when the first 1, 2, ... pixels of the order are wrong.
    intersection = num_true - tf.cumsum(is_true, axis=-1)
    union = num_true + tf.cumsum(1.0 - is_true, axis=-1)
    lost = 1.0 - intersection / union
    steps = tf.concat([lost[..., :1], lost[..., 1:] - lost[..., :-1]], axis=-1)
    is_present = num_true[..., 0] > 0.0  # [B, K]
    of_patch = _mean(tf.reduce_sum(errors * steps, axis=-1), is_present)
    counted = tf.cast(weight, tf.float32) * tf.cast(tf.reduce_any(is_present, axis=-1), tf.float32)
    return tf.math.divide_no_nan(
        tf.reduce_sum(counted * of_patch), replicas.sum_over_replicas(tf.reduce_sum(counted))
    )


def _by_pixel(label: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return truth (0 or 1) and probabilities, each float32 [B, H x W, K].

    Both are 0 where the label is 255.
    """
    num_classes = logits.shape[-1]
    # one_hot gives only zeros for an id that is no class, such as 255.
    truth = tf.one_hot(tf.cast(label, tf.int32), num_classes)
    is_counted = tf.reduce_sum(truth, axis=-1, keepdims=True)
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float32)) * is_counted
    shape = [tf.shape(truth)[0], -1, num_classes]
    return tf.reshape(truth, shape), tf.reshape(probabilities, shape)


def _mean(values: Any, is_counted: Any) -> tf.Tensor:
    """Return the mean of the counted values over the last axis; 0 when none counts."""
    counted = tf.cast(is_counted, tf.float32)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * counted, axis=-1), tf.reduce_sum(counted, axis=-1)
    )
