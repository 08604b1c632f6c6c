"""Random crop and resize, with the same window for all images and the label of a patch.

Input and output: batches of pixels. keras-cv's layers are not used: their bilinear
weights spread NaN to the neighbours, and inside tf.data they fall back to a loop over
patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf

from models.augmentation.config import GeometryConfig
from models.augmentation.no_data import joint_mask, pixel_mask, with_mask
from models.augmentation.resampling import resample, take

NUM_WINDOW_TRIES = 8
"""Number of windows drawn per patch; the first good one is used."""

MIN_VALID_RATIO = 0.5
"""Least ratio of the valid share of a good window to that of the whole patch.

It keeps crops from being empty.
"""


@dataclass(frozen=True, kw_only=True)
class _Windows:
    """One window per patch, int32 [B] each, in whole pixels."""

    top: tf.Tensor
    left: tf.Tensor
    height: tf.Tensor
    width: tf.Tensor


def random_crop(
    batch: dict[str, tf.Tensor], config: GeometryConfig, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Resize a random window of each patch to the size of the patch.

    A pixel of the result is valid where the nearest pixel of the window is valid, so
    gaps neither grow nor shrink. Sentinel-2 is bilinear among the valid pixels around
    it. Sentinel-1 and labels come from the nearest pixel: a mean of neighbours has less
    speckle than the images that a published model gets. So each radar pixel keeps its
    own label, and moves by at most half a pixel of the patch. A patch without a good
    window does not change.

    Args:
        batch: float32 [B, H, W, C] by sensor, NaN = no data, and integers [B, H, W]
            such as `label`. Tensors with one value per patch do not change.
        config: area and aspect of the windows.
        seed: int64 [2]; equal seeds give equal windows.
    """
    mask = joint_mask({name: tensor for name, tensor in batch.items() if tensor.shape.rank == 4})
    windows = _draw_windows(mask, config, seed)
    row_positions = _positions(windows.top, windows.height, tf.shape(mask)[1])
    column_positions = _positions(windows.left, windows.width, tf.shape(mask)[2])
    nearest_rows, nearest_columns = (
        _nearest(positions) for positions in (row_positions, column_positions)
    )
    rows, columns = (_bilinear(positions) for positions in (row_positions, column_positions))

    def cropped(name: str, tensor: tf.Tensor) -> tf.Tensor:
        if tensor.shape.rank == 1:
            return tensor
        nearest = take(tensor, nearest_rows, nearest_columns)
        if tensor.shape.rank == 3:
            return tf.ensure_shape(nearest, tensor.shape)
        valid = pixel_mask(nearest)
        if name == "s1":
            resampled = with_mask(nearest, valid)
        else:
            resampled = resample(tensor, rows, columns, valid)
        return tf.ensure_shape(resampled, tensor.shape)

    return {name: cropped(name, tensor) for name, tensor in batch.items()}


def _draw_windows(mask: tf.Tensor, config: GeometryConfig, seed: tf.Tensor) -> _Windows:
    """Draw one window for each patch of `mask` bool [B, H, W]."""
    num_patches, num_rows, num_columns = tf.unstack(tf.shape(mask))
    draws = tf.random.stateless_uniform([4, num_patches, NUM_WINDOW_TRIES], seed)
    fraction = config.min_crop_fraction + (1.0 - config.min_crop_fraction) * draws[0]
    # Limit the aspect of large windows: no side may be longer than the patch's.
    widest = tf.minimum(math.log(config.max_crop_aspect), -tf.math.log(fraction))
    stretch = tf.exp(0.5 * widest * (2.0 * draws[1] - 1.0))
    height = _side(num_rows, tf.sqrt(fraction) * stretch)
    width = _side(num_columns, tf.sqrt(fraction) / stretch)
    top, left = _start(num_rows - height, draws[2]), _start(num_columns - width, draws[3])
    # Count the valid pixels above and left of each corner. The four corners of a window
    # give the number inside it.
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

    return _Windows(
        top=chosen(top, 0),
        left=chosen(left, 0),
        height=chosen(height, num_rows),
        width=chosen(width, num_columns),
    )


def _side(size: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    # Round up: a window is never smaller than the config allows.
    return tf.clip_by_value(
        tf.cast(tf.math.ceil(tf.cast(size, tf.float32) * share), tf.int32), 1, size
    )


def _start(room: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    return tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32)


def _positions(start: tf.Tensor, length: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Return where in the patch the centres of the result's pixels are, [B, size].

    `size` is the number of pixels of the result. Position k is the centre of pixel k.
    """
    length = tf.cast(length, tf.float32)[:, tf.newaxis]
    middles = (tf.range(tf.cast(size, tf.float32)) + 0.5) * length / tf.cast(size, tf.float32) - 0.5
    return tf.cast(start, tf.float32)[:, tf.newaxis] + tf.clip_by_value(middles, 0.0, length - 1.0)


def _nearest(positions: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(positions + 0.5), tf.int32)


def _bilinear(positions: tf.Tensor) -> tf.Tensor:
    """Return bilinear weights of the patch's pixels, float32 [B, size, size].

    The weights of a position [B, size] are a triangle two pixels wide.
    """
    pixels = tf.range(tf.cast(tf.shape(positions)[1], tf.float32))
    return tf.nn.relu(1.0 - tf.abs(positions[..., tf.newaxis] - pixels))
