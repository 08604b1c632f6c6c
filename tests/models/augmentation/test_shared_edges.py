"""Gaps at the margins that both sensors share, and what they do to a training.

Small encoders are trained with and without such margins, and probed on whole patches.
Half of what each sensor shows is hidden from the other, so the ground identifies
partners only roughly, while the margins identify them exactly. Without protection the
loss looks better and the features are worthless (docs/adr/0013 has the figures).
"""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from models.augmentation.config import AugmentConfig
from models.config import EncoderConfig, OptimizerConfig, PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import build_dual_encoder
from models.encoders import SensorEncoder
from models.health.linear_probe import predict_values, score_values
from models.objectives.registry import make_objective
from models.optimization.optimizers import make_optimizer
from models.training.steps import TwoStageLoss, make_step
from models.views import train_views

pytestmark = pytest.mark.e2e

NUM_CLASSES, SIZE, WIDEST_MARGIN = 6, 24, 8
NUM_TRAIN, NUM_PROBE, NUM_TEST = 4000, 600, 500
NUM_STEPS, BATCH_SIZE = 160, 128
ENCODER = EncoderConfig(backbone="small", embedding_dim=64, norm="group")
BACKSCATTER_DB = np.array([[-20, -27], [-9, -14], [-12, -20], [-13, -21], [-5, -12], [-14, -22]])


def smooth_fields(rng, num_patches):
    """One random field per class; the largest one decides the class of a pixel.

    A bias per patch gives each patch a different mix.
    """
    shape = (num_patches, NUM_CLASSES, SIZE, SIZE)
    fields = ndimage.gaussian_filter(
        rng.normal(size=shape).astype(np.float32), (0, 0, SIZE / 4, SIZE / 4)
    )
    return fields / fields.std(axis=(2, 3), keepdims=True) + rng.normal(
        0.0, 0.8, (*shape[:2], 1, 1)
    )


@pytest.fixture(scope="module")
def world():
    """Images of both sensors, their valid masks, and the class shares in Sentinel-1."""
    rng = np.random.default_rng(7)
    num_patches = NUM_TRAIN + NUM_PROBE + NUM_TEST
    fields = smooth_fields(rng, num_patches)
    seen_by_s1 = fields.argmax(axis=1)
    seen_by_s2 = (0.75 * fields + 0.66 * smooth_fields(rng, num_patches)).argmax(axis=1)
    patch = np.arange(num_patches)[:, None, None]
    # What hides the classes is each sensor's own: jitter of a class in a scene,
    # speckle, gain, haze.
    s1 = (BACKSCATTER_DB + rng.normal(0.0, 4.0, (num_patches, NUM_CLASSES, 1)))[patch, seen_by_s1]
    s1 += 10.0 * np.log10(rng.gamma(4.4, 1 / 4.4, s1.shape))
    s2 = rng.uniform(0.03, 0.4, (NUM_CLASSES, 6))[seen_by_s2] * rng.uniform(
        0.6, 1.4, (num_patches, 1, 1, 1)
    )
    s2 += rng.normal(0.0, 0.03, (num_patches, 1, 1, 6)) + rng.normal(0.0, 0.02, s2.shape)
    has_data = np.zeros((num_patches, SIZE, SIZE), bool)
    margins = rng.integers(0, WIDEST_MARGIN + 1, (num_patches, 4))
    for mask, (north, south, west, east) in zip(has_data, margins, strict=True):
        mask[north : SIZE - south, west : SIZE - east] = True
    share = np.stack(
        [(seen_by_s1 == number).mean(axis=(1, 2)) for number in range(NUM_CLASSES)], axis=1
    )
    images = {"s1": s1.astype(np.float32), "s2": s2.astype(np.float32)}
    return SimpleNamespace(images=images, has_data=has_data, share=share)


def train(world, augment, has_margins):
    """The mean loss of the last steps, and the probe of Sentinel-1's features."""
    config = PretrainConfig(
        encoder=ENCODER,
        num_steps=NUM_STEPS,
        global_batch_size=BATCH_SIZE,
        augment=augment,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    tf.keras.utils.set_random_seed(0)
    encoders = {
        sensor: SensorEncoder(
            sensor=sensor,
            bands=[str(band) for band in range(image.shape[-1])],
            mean=image.mean(axis=(0, 1, 2)),
            std=image.std(axis=(0, 1, 2)),
            backbone=ENCODER.backbone,
            norm=ENCODER.norm,
        )
        for sensor, image in world.images.items()
    }
    objective = make_objective(config, encoders["s1"].output["features"].shape[-1])
    model = ContrastiveModel(build_dual_encoder(encoders, ENCODER.embedding_dim), objective)
    optimizer = make_optimizer(config.optimizer, NUM_STEPS)
    optimizer.build(model.trainable_variables)
    loss = TwoStageLoss(
        encode=functools.partial(model.encode, training=True), loss=model.replica_scalars
    )
    step = make_step(tf.distribute.get_strategy(), model, loss, optimizer)
    views = train_views(config, ("s1", "s2"), SimpleNamespace(statistics=lambda sensor: ()))
    views = tf.function(views, autograph=False)
    rng, losses = np.random.default_rng(0), []
    for number in range(NUM_STEPS):
        rows = rng.choice(NUM_TRAIN, BATCH_SIZE, replace=False)
        has_data = world.has_data[rows, :, :, np.newaxis] | (not has_margins)
        batch = {
            sensor: tf.constant(np.where(has_data, image[rows], np.nan))
            for sensor, image in world.images.items()
        }
        losses.append(float(step(views(batch, tf.constant([0, number], tf.int64)))["loss"]))
    return SimpleNamespace(loss=np.mean(losses[-20:]), probe=probe(world, encoders["s1"]))


def probe(world, encoder):
    """R2 of predicting class shares of unseen patches from Sentinel-1's features."""
    parts = np.split(np.arange(NUM_TRAIN, NUM_TRAIN + NUM_PROBE + NUM_TEST), 11)
    features = np.concatenate(
        [encoder(world.images["s1"][part], training=False)["pooled"] for part in parts]
    )
    share = world.share[NUM_TRAIN:]
    predicted = predict_values(features[:NUM_PROBE], share[:NUM_PROBE], features[NUM_PROBE:])
    return score_values(share[NUM_PROBE:], predicted)


@pytest.fixture(scope="module")
def clean(world):
    return train(world, AugmentConfig(no_data="keep"), has_margins=False)


def test_shared_margins_do_not_change_the_probe_by_default(world, clean):
    hidden = train(world, AugmentConfig(), has_margins=True)
    # The intervals are over patches: another processor's rounding is another training,
    # and moves the value by some 0.03.
    assert hidden.probe.high >= clean.probe.low > 0.2
    # The margins do not tell the partners: the loss is not better than without any.
    assert hidden.loss > 0.9 * clean.loss


def test_shared_margins_that_stay_lower_the_loss_and_spoil_the_features(world, clean):
    kept = train(world, AugmentConfig(no_data="keep"), has_margins=True)
    assert kept.loss < 0.5 * clean.loss
    assert kept.probe.high < clean.probe.low
