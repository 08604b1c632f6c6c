"""Resampling that knows about no data: rows and columns of each patch weighed by a matrix of its own.

Input: a batch of pixels, NaN = no data, and one weight matrix per patch and axis.
Output: a batch of pixels. Used by `crops.py` and `blurring.py`. Crop, resize and blur
are separable, so both are two batched matrix products: no loop over patches.
"""

from __future__ import annotations

import tensorflow as tf

from models.augmentation.no_data import pixel_mask, with_mask


def resample(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Weighted means over the valid pixels.

    Args:
        image: float32 [B, H, W, C]; a pixel that is not finite in some band has no part
            in any mean.
        rows: float32 [B, H', H], at least 0: what each row of the input counts for each
            row of the result.
        columns: float32 [B, W', W], likewise.
        mask: bool [B, H', W'], pixels of the result that get a value; some valid pixel
            must count for each of them.

    Returns:
        float32 [B, H', W', C], NaN in all bands where `mask` is False.
    """
    valid = pixel_mask(image)
    # NaN * 0 is NaN, so no data must go before the products; the means are then divided
    # by the weight that was left.
    sums = tf.einsum("bih,bhwc->biwc", rows, tf.where(valid[..., tf.newaxis], image, 0.0))
    sums = tf.einsum("bjw,biwc->bijc", columns, sums)
    weights = rows @ tf.cast(valid, tf.float32) @ tf.linalg.matrix_transpose(columns)
    return with_mask(tf.math.divide_no_nan(sums, weights[..., tf.newaxis]), mask)


def take(tensor: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """The pixels of `tensor` [B, H, W, ...] at `rows` int32 [B, H'] and `columns` int32 [B, W']: [B, H', W', ...]."""
    return tf.gather(tf.gather(tensor, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
