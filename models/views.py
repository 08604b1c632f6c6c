"""Views of a batch beyond the images themselves: augmented copies, and pairs broken on purpose.

Input: a batch of the input pipeline and a seed. Output: the batch with the views that an objective compares. Made in the input
pipeline, on the global batch: the same views on any number of replicas, and in both passes of cached gradients. Called by
`pretrain.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from models.objectives.objective import sensor_of
from models.steps import Batch

_BREAK_PAIRS = 1_000
"""Sets the seed of `break_pairs` apart from those of views, which count from 0."""

AugmentFunction = Callable[[Batch, tf.Tensor], Batch]
"""(images [B, H, W, C] by sensor, seed int64 [2]) -> the same, changed; equal seeds give equal changes."""


def make_views(batch: Batch, views: Sequence[str], augment: AugmentFunction, seed: tf.Tensor) -> Batch:
    """The views, and what else the batch holds; images that are no view themselves are dropped.

    Args:
        batch: `s1` and `s2` [B, H, W, C], whichever the views need, and tensors [B].
        views: "s1" is the image as it is, "s1_a" and "s1_b" are copies that `augment` changed, each with its own seed.
        augment: makes the copies.
        seed: int64 [2].
    """
    made = {name: tensor for name, tensor in batch.items() if tensor.shape.rank == 1}
    for index, view in enumerate(views):
        sensor = sensor_of(view)
        image: Batch = {sensor: batch[sensor]}
        if view != sensor:
            image = augment(image, tf.random.experimental.stateless_fold_in(seed, index))
        made[view] = image[sensor]
    return made


def break_pairs(batch: Batch, seed: tf.Tensor) -> Batch:
    """Gives every Sentinel-1 patch the Sentinel-2 patch of another place: no pair of the global batch stays whole.

    The order is one random cycle through all patches, so no patch can meet itself (batches of 1 cannot be broken). What the
    record says of a pair, such as its place, stays with the Sentinel-1 patch.
    """
    num_pairs = tf.shape(batch["s2"])[0]
    # Not the bare seed: flips drawn from it would fall alike on patches that become partners.
    own_seed = tf.random.experimental.stateless_fold_in(seed, _BREAK_PAIRS)
    order = tf.argsort(tf.random.stateless_uniform([num_pairs], own_seed))
    # Where `order` has i, its partner is what comes next.
    partner = tf.scatter_nd(order[:, tf.newaxis], tf.roll(order, shift=-1, axis=0), [num_pairs])
    return batch | {"s2": tf.gather(batch["s2"], partner)}
