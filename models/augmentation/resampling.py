"""Resampling that respects no data, with weights of its own for each patch.

Input: a batch of pixels, NaN = no data, and one weight matrix per patch and axis.
Output: a batch of pixels. Crop, resize and blur are separable, so each is two batched
matrix products, without a loop over patches.
"""

from __future__ import annotations

import tensorflow as tf

from models.augmentation.no_data import pixel_mask, with_mask


def resample(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return weighted means over the valid pixels.

    Args:
        image: float32 [B, H, W, C] on a linear scale: reflectance, or backscatter as
            power. A pixel that is not finite in one band does not count.
        rows: float32 [B, H', H], at least 0: the weight of each input row in each row
            of the result.
        columns: float32 [B, W', W], the same for columns.
        mask: bool [B, H', W'], the pixels of the result that get a value. Each of them
            must have a valid pixel with a weight above 0.

    Returns:
        float32 [B, H', W', C], NaN in all bands where `mask` is False.
    """
    valid = pixel_mask(image)
    # NaN * 0 is NaN, so set pixels without data to 0 before the products. The division
    # by the remaining weight then gives the mean.
    sums = tf.einsum("bih,bhwc->biwc", rows, tf.where(valid[..., tf.newaxis], image, 0.0))
    sums = tf.einsum("bjw,biwc->bijc", columns, sums)
    weights = rows @ tf.cast(valid, tf.float32) @ tf.linalg.matrix_transpose(columns)
    return with_mask(tf.math.divide_no_nan(sums, weights[..., tf.newaxis]), mask)


def take(tensor: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return the pixels of `tensor` at rows and columns, [B, H', W', ...].

    Args:
        tensor: any dtype [B, H, W, ...].
        rows: int32 [B, H'].
        columns: int32 [B, W'].
    """
    return tf.gather(tf.gather(tensor, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
