"""The eight symmetries of the square, the same one for both sensors and the label of a patch.

Input and output: a batch of pixels. Called by `augmenter.py`. Plain tensor ops on whole
batches, since keras-cv's layers fall back to a slow per-image loop inside tf.data.
Exact; other angles are left out, since they cut corners off or make new gaps.
"""

from __future__ import annotations

import tensorflow as tf


def random_symmetry(batch: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Flips and transposes each patch at random.

    Args:
        batch: tensors [B, H, W, C] (`s1`, `s2`) or [B, H, W] (`label`), any dtype;
            no-data marks move with their pixels. What has one value per patch stays as
            it is.
        seed: int64 [2]; the same seed gives the same symmetries.

    Returns:
        The batch with one symmetry per patch. Patches that are not square are flipped
        only.
    """
    first = next(tensor for tensor in batch.values() if tensor.shape.rank > 1)
    num_patches, height, width = tf.unstack(tf.shape(first)[:3])
    flags = tf.random.stateless_uniform([3, num_patches], seed) < 0.5
    source = _source_pixels(height, width, flags)
    return {
        name: tensor if tensor.shape.rank == 1 else _gather_pixels(tensor, source)
        for name, tensor in batch.items()
    }


def _source_pixels(height: tf.Tensor, width: tf.Tensor, flags: tf.Tensor) -> tf.Tensor:
    """The pixel that each is taken from, int32 [B, H * W]: rows, columns reversed, axes swapped as `flags` bool [3, B] say."""
    reverses_rows, reverses_columns, swaps_axes = tf.unstack(
        flags[:, :, tf.newaxis, tf.newaxis], num=3
    )
    # Flips and transposition together make all quarter turns.
    swaps_axes &= tf.equal(height, width)
    row, column = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
    row, column = tf.where(swaps_axes, column, row), tf.where(swaps_axes, row, column)
    row = tf.where(reverses_rows, height - 1 - row, row)
    column = tf.where(reverses_columns, width - 1 - column, column)
    return tf.reshape(row * width + column, [-1, height * width])


def _gather_pixels(tensor: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """`tensor` [B, H, W, ...] from its own pixels; one pass, where flips of the whole batch would take one for each."""
    shape = tf.shape(tensor)
    pixels = tf.reshape(tensor, tf.concat([shape[:1], [-1], shape[3:]], axis=0))
    return tf.ensure_shape(tf.reshape(tf.gather(pixels, source, batch_dims=1), shape), tensor.shape)
