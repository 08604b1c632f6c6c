"""The eight symmetries of the square, the same one for both sensors and the label of a patch.

Input and output: a batch of pixels. Called by `augmenter.py`. Plain tensor ops on whole batches, since keras-cv's layers fall
back to a slow per-image loop inside tf.data. Exact; other angles are left out, since they cut corners off or make new gaps.
"""

from __future__ import annotations

import tensorflow as tf


def random_symmetry(batch: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Flips and transposes each patch at random.

    Args:
        batch: tensors [B, H, W, C] (`s1`, `s2`) or [B, H, W] (`label`), any dtype; no-data marks move with their pixels.
            What has one value per patch stays as it is.
        seed: int64 [2]; the same seed gives the same symmetries.

    Returns:
        The batch with one symmetry per patch. Patches that are not square are flipped only.
    """
    first = next(tensor for tensor in batch.values() if tensor.shape.rank > 1)
    flags = tf.random.stateless_uniform([3, tf.shape(first)[0]], seed) < 0.5
    is_square = tf.equal(tf.shape(first)[1], tf.shape(first)[2])
    return {
        name: tensor if tensor.shape.rank == 1 else _apply(tensor, flags, is_square) for name, tensor in batch.items()
    }


def _apply(tensor: tf.Tensor, flags: tf.Tensor, is_square: tf.Tensor) -> tf.Tensor:
    """`tensor` [B, H, W, ...] with rows, columns reversed and axes swapped where `flags` bool [3, B] says so."""
    per_patch = [tf.reshape(flag, [-1] + [1] * (tensor.shape.rank - 1)) for flag in tf.unstack(flags, num=3)]
    tensor = tf.where(per_patch[0], tf.reverse(tensor, axis=[1]), tensor)
    tensor = tf.where(per_patch[1], tf.reverse(tensor, axis=[2]), tensor)
    # Flips and transposition together make all quarter turns.
    swapped_axes = [0, 2, 1, 3][: tensor.shape.rank]
    return tf.cond(
        is_square,
        lambda: tf.where(per_patch[2], tf.ensure_shape(tf.transpose(tensor, swapped_axes), tensor.shape), tensor),
        lambda: tensor,
    )
