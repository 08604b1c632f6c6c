"""Random crop and resize: the same window for all sensors and the label of a patch.

Input and output: batches of pixels. Called by `augmenter.py`. Not keras-cv's layers:
their bilinear weights spread NaN over the neighbours, and inside tf.data they fall back
to a loop over patches.
"""

from __future__ import annotations

import math

import tensorflow as tf

from models.augmentation.config import GeometryConfig
from models.augmentation.no_data import joint_mask
from models.augmentation.resampling import resample, take

NUM_WINDOW_TRIES = 8
"""Windows drawn per patch, of which the first good one is taken."""

MIN_VALID_RATIO = 0.5
"""A window is good if it is at least this much as full of data as the whole patch: no crop is ever empty."""


def random_crop(
    batch: dict[str, tf.Tensor], config: GeometryConfig, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Resizes a random window of each patch to the size of the patch.

    A pixel of the result is valid where the nearest pixel of the window is, so gaps
    neither grow nor shrink; its value is bilinear among the valid pixels around it.
    Labels are those of the nearest pixel. Where no window is good the patch stays as it
    is.

    Args:
        batch: float32 [B, H, W, C] by sensor, NaN = no data, and integers [B, H, W]
            such as `label`. What has one value per patch stays as it is.
        config: area and aspect of the windows.
        seed: int64 [2]; equal seeds give equal windows.
    """
    mask = joint_mask({name: tensor for name, tensor in batch.items() if tensor.shape.rank == 4})
    top, left, height, width = _draw_windows(mask, config, seed)
    row_positions = _positions(top, height, tf.shape(mask)[1])
    column_positions = _positions(left, width, tf.shape(mask)[2])
    nearest_rows, nearest_columns = (
        _nearest(positions) for positions in (row_positions, column_positions)
    )
    rows, columns = (_bilinear(positions) for positions in (row_positions, column_positions))

    def cropped(tensor: tf.Tensor) -> tf.Tensor:
        if tensor.shape.rank == 1:
            return tensor
        nearest = take(tensor, nearest_rows, nearest_columns)
        if tensor.shape.rank == 3:
            return tf.ensure_shape(nearest, tensor.shape)
        valid = tf.reduce_all(tf.math.is_finite(nearest), axis=-1)
        return tf.ensure_shape(resample(tensor, rows, columns, valid), tensor.shape)

    return {name: cropped(tensor) for name, tensor in batch.items()}


def _draw_windows(
    mask: tf.Tensor, config: GeometryConfig, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Top, left, height and width of one window per patch of `mask` bool [B, H, W], int32 [B] each, in whole pixels."""
    num_patches, num_rows, num_columns = tf.unstack(tf.shape(mask))
    draws = tf.random.stateless_uniform([4, num_patches, NUM_WINDOW_TRIES], seed)
    fraction = config.min_crop_fraction + (1.0 - config.min_crop_fraction) * draws[0]
    # A window of most of the patch cannot be long and thin: no side is longer than the
    # patch's.
    widest = tf.minimum(math.log(config.max_crop_aspect), -tf.math.log(fraction))
    stretch = tf.exp(0.5 * widest * (2.0 * draws[1] - 1.0))
    height = _side(num_rows, tf.sqrt(fraction) * stretch)
    width = _side(num_columns, tf.sqrt(fraction) / stretch)
    top, left = _start(num_rows - height, draws[2]), _start(num_columns - width, draws[3])
    # Valid pixels above and left of each corner: four of them tell the number in a
    # window.
    sums = tf.pad(
        tf.cumsum(tf.cumsum(tf.cast(mask, tf.int32), axis=1), axis=2), [[0, 0], [1, 0], [1, 0]]
    )
    flat = tf.reshape(sums, [num_patches, -1])

    def corner(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.gather(flat, row * (num_columns + 1) + column, batch_dims=1)

    bottom, right = top + height, left + width
    num_valid = (
        corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
    )
    share = tf.cast(num_valid, tf.float32) / tf.cast(height * width, tf.float32)
    own_share = tf.reduce_mean(tf.cast(mask, tf.float32), axis=[1, 2])[:, tf.newaxis]
    is_good = (num_valid > 0) & (share >= MIN_VALID_RATIO * own_share)
    first_good = tf.argmax(tf.cast(is_good, tf.int32), axis=1)

    def chosen(values: tf.Tensor, otherwise: tf.Tensor | int) -> tf.Tensor:
        return tf.where(
            tf.reduce_any(is_good, axis=1), tf.gather(values, first_good, batch_dims=1), otherwise
        )

    return chosen(top, 0), chosen(left, 0), chosen(height, num_rows), chosen(width, num_columns)


def _side(size: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    # Rounded up: a window is never smaller than was asked for.
    return tf.clip_by_value(
        tf.cast(tf.math.ceil(tf.cast(size, tf.float32) * share), tf.int32), 1, size
    )


def _start(room: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    return tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32)


def _positions(start: tf.Tensor, length: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Where in the patch the middles of the result's `size` pixels lie, float32 [B, size]: pixel k's middle is at k."""
    length = tf.cast(length, tf.float32)[:, tf.newaxis]
    middles = (tf.range(tf.cast(size, tf.float32)) + 0.5) * length / tf.cast(size, tf.float32) - 0.5
    return tf.cast(start, tf.float32)[:, tf.newaxis] + tf.clip_by_value(middles, 0.0, length - 1.0)


def _nearest(positions: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(positions + 0.5), tf.int32)


def _bilinear(positions: tf.Tensor) -> tf.Tensor:
    """Weights float32 [B, size, size] of the patch's pixels at `positions` [B, size]: tents of two pixels' width."""
    pixels = tf.range(tf.cast(tf.shape(positions)[1], tf.float32))
    return tf.nn.relu(1.0 - tf.abs(positions[..., tf.newaxis] - pixels))
