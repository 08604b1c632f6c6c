"""No data as a tensor: which pixels count, and how a batch is kept from being told apart by them.

Input and output: batches of pixels, NaN = no data. Called by `models/views.py`; the
other modules of this package take masks from here.

Patches of one pair often lack data in one place (a margin of the export, a scene's
edge, a cloud mask given to both). A contrastive loss then needs no look at the ground:
the shape of the gap alone names the partner. Masking both sensors by both masks does
not help, it makes gaps of one sensor common to both. So gaps are taken away
(`hide_gaps`), and patches get the gaps of others (`give_gaps`), each view on its own:
encoders still learn what gaps look like, but gaps no longer tell the pair.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

NUM_FILL_TRIES = 12
"""Moved copies that are tried to fill a gap: of a patch that lacks 60 % about 0.2 % then remain (0.6 ** 12)."""

MIN_LEFT_FRACTION = 0.5
"""Share of a patch's valid pixels that foreign gaps must leave; else it keeps them all, so none is ever emptied."""


def pixel_mask(image: tf.Tensor) -> tf.Tensor:
    """Bool [B, H, W], True where every band of `image` [B, H, W, C] is finite: what the encoders count as valid."""
    return tf.reduce_all(tf.math.is_finite(image), axis=-1)


def joint_mask(images: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Bool [B, H, W], True where every sensor has data."""
    return tf.reduce_all(tf.stack([pixel_mask(image) for image in images.values()]), axis=0)


def with_mask(image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`image` [..., C] with NaN in all bands where `mask` bool [...] is False."""
    return tf.where(mask[..., tf.newaxis], image, float("nan"))


def mask_jointly(images: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The images by sensor [B, H, W, C], each with NaN wherever one of them has no data."""
    mask = joint_mask(images)
    return {sensor: with_mask(image, mask) for sensor, image in images.items()}


def hide_gaps(images: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """Fills what one sensor lacks, in all sensors alike, with ground of the same patch, moved and flipped at random.

    So all sensors still see one ground at each pixel, and what covers a patch stays
    about the same. Nothing is averaged: each value is one that was measured. What stays
    open after all tries has no data in any sensor; so has a patch without any.

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

    # Most batches of a good data set have no gap at all.
    flat = tf.cond(tf.reduce_all(mask), lambda: [_flat(image) for image in images.values()], filled)
    return {
        sensor: tf.ensure_shape(tf.reshape(pixels, tf.shape(image)), image.shape)
        for (sensor, image), pixels in zip(images.items(), flat, strict=True)
    }


def give_gaps(image: tf.Tensor, gaps: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Takes from each patch what another patch of the batch, drawn at random, lacks.

    Args:
        image: float32 [B, H, W, C].
        gaps: bool [B, H, W], True = valid: the masks that are dealt out anew.
        seed: int64 [2]; another one for each view, or the views of a pair get the same
            gap.

    Returns:
        The images with NaN in the gaps; a patch that would lose too much gets none.
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
    """The pixel that each pixel is taken from, int32 [B, H * W], and bool, True where none with data was found."""
    num_patches, num_rows, num_columns = tf.unstack(tf.shape(mask))
    # Shifts along rows and columns, and whether these are counted backwards.
    draws = tf.random.stateless_uniform([4, NUM_FILL_TRIES, num_patches, 1], seed)
    rows, columns = (
        tf.unstack(_moved(num_rows, draws[0], draws[1])),
        tf.unstack(_moved(num_columns, draws[2], draws[3])),
    )
    valid = tf.reshape(mask, [num_patches, -1])
    # Only the open pixels are looked at, patch and pixel [N, 2]: they are few, and
    # fewer with each try.
    left, found, sources = tf.cast(tf.where(~valid), tf.int32), [], []
    for attempt in range(NUM_FILL_TRIES):
        patch, pixel = tf.unstack(left, axis=1)
        row = tf.gather_nd(rows[attempt], tf.stack([patch, pixel // num_columns], axis=1))
        column = tf.gather_nd(columns[attempt], tf.stack([patch, pixel % num_columns], axis=1))
        moved = row * num_columns + column
        is_found = tf.gather_nd(valid, tf.stack([patch, moved], axis=1))
        # boolean_mask says the same in three times as many operations, and they are
        # traced for each try.
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
    """Positions 0 to `size` - 1 moved around the circle by `shift` float32 [..., 1], 0-1, and reversed or not: [..., size]."""
    shift_px = tf.cast(shift * tf.cast(size, tf.float32), tf.int32)
    return tf.math.floormod(tf.where(flip < 0.5, -1, 1) * tf.range(size) + shift_px, size)


def _flat(image: tf.Tensor) -> tf.Tensor:
    return tf.reshape(image, [tf.shape(image)[0], -1, image.shape[-1]])
