"""The loss of a segmenter's training: a weighted sum of the losses in its config.

Input: `LossConfig`, the pixels per class of the train split. Output: a function of one
replica's labels, logits and weights. Its values on all replicas add up to the loss of
the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from models.losses import MaskedCrossentropy, global_weight
from models.pixel_losses.config import LossConfig
from models.pixel_losses.regions import lovasz_softmax, soft_dice

SegmentLoss = Callable[[Any, Any, Any], "dict[str, tf.Tensor]"]
"""(label [B, H, W], logits float32 [B, H, W, K], patch weights float32 [B]) -> scalars.

255 in the label = ignore. The scalars are this replica's part of `loss` and, when the
loss has several terms, of `loss_<term>` without its weight in the sum.
"""


def make_segment_loss(
    config: LossConfig, class_names: Sequence[str], num_pixels_per_class: Mapping[str, int]
) -> SegmentLoss:
    """Return the loss of `config`.

    Args:
        config: terms and weights.
        class_names: names of the K classes, in the order of their ids.
        num_pixels_per_class: id as text -> pixels of the train split, as
            `Manifest.num_pixels_per_class["train"]`.

    Raises:
        ValueError: see `class_weights`.
    """
    weights = class_weights(config, class_names, num_pixels_per_class)
    known: dict[str, Callable[[Any, Any, Any], tf.Tensor]] = {
        "crossentropy": _weighted(MaskedCrossentropy(weights)),
        "focal": _weighted(MaskedCrossentropy(weights, config.focal_gamma)),
        "dice": soft_dice,
        "lovasz": lovasz_softmax,
    }

    def compute(label: Any, logits: Any, weight: Any) -> dict[str, tf.Tensor]:
        parts = {name: known[name](label, logits, weight) for name in config.terms}
        total = tf.add_n([config.terms[name] * part for name, part in parts.items()])
        terms = {f"loss_{name}": part for name, part in parts.items()} if len(parts) > 1 else {}
        return {"loss": total, **terms}

    return compute


def class_weights(
    config: LossConfig, class_names: Sequence[str], num_pixels_per_class: Mapping[str, int]
) -> tuple[float, ...] | None:
    """Return the weight of a pixel of each class; None = all alike.

    Balanced weights are (all pixels) / (K x pixels of the class). Each class then has
    the same share of the loss.
    Source: King and Zeng 2001, "Logistic Regression in Rare Events Data", as
    scikit-learn's "balanced".

    Raises:
        ValueError: a weight of no class, or a class without pixels that cannot be
            balanced.
    """
    config.check_classes(class_names)
    if not isinstance(config.class_weights, str):
        given = config.class_weights
        return tuple(given.get(name, 1.0) for name in class_names) if given else None
    counts = [num_pixels_per_class.get(str(index), 0) for index in range(len(class_names))]
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if absent:
        raise ValueError(
            "loss.class_weights balanced needs pixels of every class in the train split, "
            f"got none of {', '.join(absent)}"
        )
    return tuple(sum(counts) / (len(counts) * count) for count in counts)


def _weighted(loss: MaskedCrossentropy) -> Callable[[Any, Any, Any], tf.Tensor]:
    """Return `loss` as a function of label, logits and patch weights."""
    return lambda label, logits, weight: loss(
        label, logits, sample_weight=global_weight(weight, loss.size(label))
    )
