"""No data: masks of valid pixels, and how to keep gaps from identifying the pair.

Input and output: batches of pixels, NaN = no data.

Patches of one pair often miss the same pixels: at the margin of an export, at a scene's
edge, or under a cloud mask that was applied to both. A contrastive loss can then match
the pair by the shape of the gap, and the model learns nothing about the ground. Masking
both sensors by both masks makes it worse: it adds one sensor's gaps to the other. So
`hide_gaps` fills the gaps, and `give_gaps` gives each view the gaps of other patches.
Encoders still learn what gaps look like, but gaps no longer identify the pair.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

NUM_FILL_TRIES = 12
"""Number of moved copies to try when a gap is filled.

A patch that misses 60 % of its pixels then keeps about 0.2 % of gaps (0.6 ** 12).
"""

MIN_LEFT_FRACTION = 0.5
"""Least share of a patch's valid pixels that gaps of other patches must leave.

If they would leave less, the patch gets none, so no patch becomes empty.
"""


def pixel_mask(image: tf.Tensor) -> tf.Tensor:
    """Return which pixels are valid, bool [B, H, W].

    A pixel of `image` [B, H, W, C] is valid if every band is finite, as in the
    encoders.
    """
    return tf.reduce_all(tf.math.is_finite(image), axis=-1)


def joint_mask(images: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return where every sensor has data, bool [B, H, W]."""
    return tf.reduce_all(tf.stack([pixel_mask(image) for image in images.values()]), axis=0)


def with_mask(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return `image` [..., C] with NaN in all bands where `mask` [...] is False."""
    return tf.where(mask[..., tf.newaxis], image, float("nan"))


def mask_jointly(images: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the images [B, H, W, C] by sensor with NaN wherever one has no data."""
    mask = joint_mask(images)
    return {sensor: with_mask(image, mask) for sensor, image in images.items()}


def hide_gaps(images: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Fill the gaps of each sensor, in all sensors, with ground of the same patch.

    The ground is the patch itself, moved and flipped at random. All sensors use the
    same source pixel, so they still show the same ground, and the mix of land cover
    stays about the same. Each value is a measured one; nothing is averaged. Pixels that
    stay open after all tries have no data in any sensor. A patch without any data stays
    empty.

    Args:
        images: float32 [B, H, W, C] by sensor.
        seed: int64 [2].
    """
    mask = joint_mask(images)

    def filled() -> list[tf.Tensor]:
        source, is_open = _fill_from(mask, seed)
        return [
            with_mask(tf.gather(_flat(image), source, axis=1, batch_dims=1), ~is_open)
            for image in images.values()
        ]

    # Most batches of a good data set have no gap, so skip the work for them.
    flat = tf.cond(tf.reduce_all(mask), lambda: [_flat(image) for image in images.values()], filled)
    return {
        sensor: tf.ensure_shape(tf.reshape(pixels, tf.shape(image)), image.shape)
        for (sensor, image), pixels in zip(images.items(), flat, strict=True)
    }


def give_gaps(image: tf.Tensor, gaps: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Remove from each patch the pixels that another patch of the batch misses.

    The other patch is drawn at random.

    Args:
        image: float32 [B, H, W, C].
        gaps: bool [B, H, W], True = valid: the masks to distribute among the patches.
        seed: int64 [2]. Each view needs its own, or the views of a pair get the same
            gap.

    Returns:
        The images with NaN in the gaps. A patch that would lose too many pixels gets
        none.
    """
    order = tf.argsort(tf.random.stateless_uniform([tf.shape(gaps)[0]], seed))
    own = pixel_mask(image)
    left = own & tf.gather(gaps, order)
    num_own, num_left = (
        tf.math.count_nonzero(mask, axis=[1, 2], dtype=tf.float32) for mask in (own, left)
    )
    is_kept = num_left >= MIN_LEFT_FRACTION * num_own
    return with_mask(image, tf.where(is_kept[:, tf.newaxis, tf.newaxis], left, own))


def _fill_from(mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the source of each pixel, and which pixels found none.

    The sources are int32 [B, H * W]; the second is bool [B, H * W].
    """
    num_patches, num_rows, num_columns = tf.unstack(tf.shape(mask))
    # Shifts along rows and columns, and whether to reverse them.
    draws = tf.random.stateless_uniform([4, NUM_FILL_TRIES, num_patches, 1], seed)
    rows, columns = (
        tf.unstack(_moved(num_rows, draws[0], draws[1])),
        tf.unstack(_moved(num_columns, draws[2], draws[3])),
    )
    valid = tf.reshape(mask, [num_patches, -1])
    # Look only at the open pixels, [N, 2] of patch and pixel. They are few, and each
    # try leaves fewer.
    left, found, sources = tf.cast(tf.where(~valid), tf.int32), [], []
    for attempt in range(NUM_FILL_TRIES):
        patch, pixel = tf.unstack(left, axis=1)
        row = tf.gather_nd(rows[attempt], tf.stack([patch, pixel // num_columns], axis=1))
        column = tf.gather_nd(columns[attempt], tf.stack([patch, pixel % num_columns], axis=1))
        moved = row * num_columns + column
        is_found = tf.gather_nd(valid, tf.stack([patch, moved], axis=1))
        # `boolean_mask` needs three times as many operations, traced for each try.
        hits = tf.squeeze(tf.where(is_found), axis=1)
        found.append(tf.gather(left, hits))
        sources.append(tf.gather(moved, hits))
        left = tf.gather(left, tf.squeeze(tf.where(~is_found), axis=1))
    own = tf.range(num_rows * num_columns)[tf.newaxis] * tf.ones([num_patches, 1], tf.int32)
    source = tf.tensor_scatter_nd_update(own, tf.concat(found, axis=0), tf.concat(sources, axis=0))
    is_open = tf.tensor_scatter_nd_update(
        tf.zeros_like(valid), left, tf.ones(tf.shape(left)[:1], tf.bool)
    )
    return source, is_open


def _moved(size: tf.Tensor, shift: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Return positions 0 to `size` - 1, shifted cyclically and perhaps reversed.

    `shift` float32 [..., 1] is a share of `size`, 0-1; a `flip` below 0.5 reverses. The
    result is [..., size].
    """
    shift_px = tf.cast(shift * tf.cast(size, tf.float32), tf.int32)
    return tf.math.floormod(tf.where(flip < 0.5, -1, 1) * tf.range(size) + shift_px, size)


def _flat(image: tf.Tensor) -> tf.Tensor:
    return tf.reshape(image, [tf.shape(image)[0], -1, image.shape[-1]])
