"""Views of a batch: the images that an objective compares.

Input: a batch of the input pipeline and a seed. Output: the batch with the views of an
objective: images as they are or augmented copies, with no data hidden, and with broken
pairs for the control. Views are made in the input pipeline, on the global batch, so
they are the same on any number of replicas and in both passes of cached gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from beam_jobs.contracts.bands import SENSORS
from beam_jobs.contracts.manifest import Manifest
from models.augmentation import no_data
from models.augmentation.augmenter import AugmentFunction, augment_geometry, make_augmenter
from models.config import PretrainConfig
from models.objectives.objective import sensor_of
from models.training.steps import Batch


def train_views(
    config: PretrainConfig, views: Sequence[str], manifest: Manifest
) -> AugmentFunction:
    """Return the function that makes the `views` of a training batch.

    It is the `transform` of `input_pipeline.train_dataset`.
    """
    finish = eval_views(config, views, manifest)

    def transform(batch: Batch, seed: tf.Tensor) -> Batch:
        breaking, pairing, finishing = tf.unstack(tf.random.split(seed, 3))
        batch = break_pairs(batch, breaking) if config.objective == "shuffled" else batch
        return finish(augment_geometry(batch, config.augment.pair, pairing), finishing)

    return transform


def eval_views(config: PretrainConfig, views: Sequence[str], manifest: Manifest) -> AugmentFunction:
    """Return the function that makes the `views` of an evaluation batch.

    It is the `transform` of `input_pipeline.eval_dataset`. Pairs are not broken and not
    moved. No data is hidden as in training: otherwise the model could match pairs by
    the shape of their gaps, and the loss would mean nothing.
    """
    augment = make_augmenter(config.augment.view, manifest)

    def transform(batch: Batch, seed: tf.Tensor) -> Batch:
        hiding, making, giving = tf.unstack(tf.random.split(seed, 3))
        images: Batch = {sensor: batch[sensor] for sensor in SENSORS if sensor in batch}
        gaps = {sensor: no_data.pixel_mask(image) for sensor, image in images.items()}
        if config.augment.no_data == "mask":
            batch = batch | no_data.mask_jointly(images)
        if config.augment.no_data != "hide":
            return make_views(batch, views, augment, making)
        made = make_views(batch | no_data.hide_gaps(images, hiding), views, augment, making)
        for view, own_seed in zip(
            views, tf.unstack(tf.random.split(giving, len(views))), strict=True
        ):
            made[view] = no_data.give_gaps(made[view], gaps[sensor_of(view)], own_seed)
        return made

    return transform


def make_views(
    batch: Batch, views: Sequence[str], augment: AugmentFunction, seed: tf.Tensor
) -> Batch:
    """Return the views and the batch's other features, without the original images.

    An image that is itself a view is kept.

    Args:
        batch: `s1` and `s2` [B, H, W, C], whichever the views need, and tensors [B].
        views: "s1" is the image as it is, "s1_a" and "s1_b" are copies that `augment`
            changed, each with its own seed.
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
    """Give every Sentinel-1 patch the Sentinel-2 patch of a random place.

    All orders of the global batch are equally probable, so one of its N patches keeps
    its own partner on average. If no patch could keep it, the true partner would always
    be a negative, and the model would learn the pairs with a negative sign. The pair's
    other features, such as its place, stay with the Sentinel-1 patch.
    """
    num_pairs = tf.shape(batch["s2"])[0]
    partner = tf.argsort(tf.random.stateless_uniform([num_pairs], seed))
    return batch | {"s2": tf.gather(batch["s2"], partner)}
