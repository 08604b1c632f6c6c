"""The eight symmetries of the square, the same for all images and the label of a patch.

Input and output: a batch of pixels. They are exact. Rotations by other angles would cut
corners off or add gaps. Plain tensor operations on whole batches, since keras-cv's
layers fall back to a slow loop over images inside tf.data.
"""

from __future__ import annotations

import tensorflow as tf


def random_symmetry(batch: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Flip and transpose each patch at random.

    Args:
        batch: tensors [B, H, W, C] (`s1`, `s2`) or [B, H, W] (`label`), any dtype.
            No-data marks move with their pixels. Tensors with one value per patch do
            not change.
        seed: int64 [2]; equal seeds give equal symmetries.

    Returns:
        The batch with one symmetry per patch. Patches that are not square are only
        flipped.
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
    """Return the source of each pixel, int32 [B, H * W].

    `flags` bool [3, B] say whether to reverse rows, reverse columns and swap the axes.
    """
    reverses_rows, reverses_columns, swaps_axes = tf.unstack(
        flags[:, :, tf.newaxis, tf.newaxis], num=3
    )
    # Flips and transposition combined give all quarter turns.
    swaps_axes &= tf.equal(height, width)
    row, column = tf.range(height)[:, tf.newaxis], tf.range(width)[tf.newaxis]
    row, column = tf.where(swaps_axes, column, row), tf.where(swaps_axes, row, column)
    row = tf.where(reverses_rows, height - 1 - row, row)
    column = tf.where(reverses_columns, width - 1 - column, column)
    return tf.reshape(row * width + column, [-1, height * width])


def _gather_pixels(tensor: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """Return `tensor` [B, H, W, ...] rearranged by source pixel.

    One gather does all symmetries; flips of the whole batch would need a pass each.
    """
    shape = tf.shape(tensor)
    pixels = tf.reshape(tensor, tf.concat([shape[:1], [-1], shape[3:]], axis=0))
    return tf.ensure_shape(tf.reshape(tf.gather(pixels, source, batch_dims=1), shape), tensor.shape)
