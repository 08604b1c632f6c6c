"""Cross-entropy and focal loss over the labelled pixels of the global batch.

Input: tensors of one replica. Output: a loss per example. Keras' reduction of it (mean,
divided by the number of replicas, summed over replicas) is the loss of the global
batch, on any number of replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from beam_jobs.contracts.labels import IGNORE
from models.training import replicas


@keras.saving.register_keras_serializable(package="terrapair")
class MaskedCrossentropy(keras.losses.Loss):
    """Mean cross-entropy, or focal loss, over the labelled pixels of the global batch.

    Call: `y_true` label ids [B, H, W] (0..K-1, 255 = ignore), `y_pred` logits float32
    [B, H, W, K]. The sum over pixels is divided by the number of labelled pixels of all
    replicas, so each labelled pixel counts the same on whichever replica it is. With
    class weights both are sums of the pixels' weights. 0 when no pixel is labelled.
    With `sample_weight` from `global_weight` every pixel has the weight of its patch.
    Source of the focal factor (1 - p)**gamma, p the probability of the true class: Lin
    et al. 2017, arXiv 1708.02002, eq. 4.

    Attributes:
        class_weights: weight of a pixel of each of the K classes; None = all alike.
        focal_gamma: 0 = cross-entropy.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        focal_gamma: float = 0.0,
        name: str = "masked_crossentropy",
        reduction: str = "sum_over_batch_size",
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.class_weights = None if class_weights is None else tuple(map(float, class_weights))
        self.focal_gamma = focal_gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return float32 [B], which Keras' reduction turns into the masked mean."""
        # Replace 255 by a class: an unknown id would make the loss NaN even where its
        # weight is 0.
        pixel_loss = pixel_crossentropy(y_pred, tf.one_hot(_known_ids(y_true), y_pred.shape[-1]))
        if self.focal_gamma:
            # expm1 keeps the digits of 1 - p. The floor keeps the gradient finite for
            # gamma below 1.
            pixel_loss *= tf.maximum(-tf.math.expm1(-pixel_loss), 1e-7) ** self.focal_gamma
        weight = self._pixel_weight(y_true)
        total = replicas.sum_over_replicas(tf.reduce_sum(weight))
        batch_size = tf.cast(tf.shape(y_true)[0], tf.float32)
        # Undo Keras' mean over the replica's batch and its division by the replicas.
        scale = tf.math.divide_no_nan(batch_size * replicas.num_replicas(), total)
        return tf.reduce_sum(pixel_loss * weight, axis=[1, 2]) * scale

    def size(self, label: Any) -> tf.Tensor:
        """Return the number of labelled pixels of label ids [B, H, W], float32 [B].

        With class weights it is the sum of the pixels' weights. See `global_weight`.
        """
        return tf.reduce_sum(self._pixel_weight(label), axis=[1, 2])

    def get_config(self) -> dict[str, Any]:
        """Return weights, gamma, name and reduction."""
        own = {"class_weights": self.class_weights, "focal_gamma": self.focal_gamma}
        return {**own, "name": self.name, "reduction": self.reduction}

    def _pixel_weight(self, label: Any) -> tf.Tensor:
        """Return each pixel's weight, float32 [B, H, W]; 0 where the label is 255."""
        weight = tf.cast(tf.cast(label, tf.int32) != IGNORE, tf.float32)
        return (
            weight
            if self.class_weights is None
            else weight * tf.gather(self.class_weights, _known_ids(label))
        )


@tf.custom_gradient
def pixel_crossentropy(
    logits: tf.Tensor, target: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], Any]]:
    """Return the cross-entropy [...] of logits [..., K] and one-hot `target` [..., K].

    With few classes and many pixels TensorFlow's own kernels take twice the time on CPU
    (docs/performance.md).
    """
    log_probabilities = tf.nn.log_softmax(logits)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return (tf.exp(log_probabilities) - target) * upstream[..., tf.newaxis], None

    return -tf.reduce_sum(log_probabilities * target, axis=-1), gradient


def _known_ids(label: Any) -> tf.Tensor:
    """Return `label` as int32, with class 0 where it is 255."""
    ids = tf.cast(label, tf.int32)
    return tf.where(ids != IGNORE, ids, 0)


def global_weight(weight: Any, size: Any) -> tf.Tensor:
    """Return the `sample_weight` for a weighted mean over the global batch.

    Args:
        weight: float32 [B], at least 0, weight of each example of this replica.
        size: float32 [B], number of terms of each example in the unweighted mean: a
            loss's `size`.

    Returns:
        float32 [B]: weight x (sum of size) / (sum of weight x size), both sums over all
        replicas. Exactly 1 when all weights are 1: the loss is then the unweighted one
        to the last bit. 0 when all weights are 0.
    """
    weight, size = tf.cast(weight, tf.float32), tf.cast(size, tf.float32)
    total = replicas.sum_over_replicas(tf.reduce_sum(size))
    weighted = replicas.sum_over_replicas(tf.reduce_sum(weight * size))
    return weight * tf.math.divide_no_nan(total, weighted)
