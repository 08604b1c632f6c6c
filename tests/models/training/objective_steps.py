"""One step of every objective, with and without cached gradients and chunks.

`replica_parity_worker.py` takes the steps on one replica and on two.
"""

import tempfile
from typing import get_args

import keras
import numpy as np
import tensorflow as tf

from models.config import EncoderConfig, ObjectiveName, PretrainConfig
from models.contrastive_model import ContrastiveModel
from models.dual_encoder import ProjectionHead
from models.objectives.registry import make_objective
from models.training import training
from models.training.steps import TwoStageLoss

NUM_PAIRS = 8
# The controls break pairs in the input pipeline or do not train: their loss is that of
# the default.
OBJECTIVES = tuple(name for name in get_args(ObjectiveName) if name not in ("shuffled", "none"))
# Parts of a replica's batch, rows of logits at a time. Two replicas hold 4 pairs each.
VARIANTS = {"one/whole": (1, None), "two/whole": (1, None), "two/parts": (2, 2)}


class TinyDualEncoder:
    """Encoders of a few weights that give what the objectives look at, without batch statistics."""

    def __init__(self):
        self.encoders, self.heads = {}, {}
        for sensor, num_bands in (("s1", 2), ("s2", 3)):
            pixels = keras.Input((8, 8, num_bands), name=sensor)
            valid_mask = keras.layers.Lambda(valid_of, output_shape=(8, 8, 1))(pixels)
            filled = keras.layers.Lambda(filled_of, output_shape=(8, 8, num_bands))(pixels)
            features = keras.layers.Conv2D(6, 4, strides=4, activation="tanh")(filled)
            pooled = keras.layers.GlobalAveragePooling2D()(features)
            outputs = {"features": features, "pooled": pooled, "valid_mask": valid_mask}
            self.encoders[sensor] = keras.Model(pixels, outputs)
            self.heads[sensor] = ProjectionHead(features_dim=6, embedding_dim=5)


def valid_of(pixels):
    return tf.cast(tf.reduce_all(tf.math.is_finite(pixels), axis=-1, keepdims=True), tf.float32)


def filled_of(pixels):
    return tf.where(tf.math.is_finite(pixels), pixels, 0.0)


def make_batch(views):
    rng = np.random.default_rng(0)
    batch = {}
    for view in views:
        pixels = rng.normal(size=(NUM_PAIRS, 8, 8, 2 if view.startswith("s1") else 3)).astype(
            np.float32
        )
        # Uneven between the replicas: one pair without any data, one with a cell that
        # does not count.
        pixels[1] = np.nan if view == views[0] else pixels[1]
        pixels[2, :4, :4] = np.nan
        batch[view] = pixels
    # Pairs 0 and 5, of different replicas, are 5 km apart.
    batch["lon"] = np.array([10.0, 20, 30, 40, 50, 10.0, 70, 80], np.float32)
    batch["lat"] = np.array([0.0, 1, 2, 3, 4, 0.045, 6, 7], np.float32)
    batch["weight"] = np.linspace(0.5, 1.5, NUM_PAIRS).astype(np.float32)
    return batch


def take_step(strategy, objective, num_parts, chunk_size):
    """Scalars of one step, gradients (SGD of rate 1: old minus new), new weights."""
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=5),
        num_steps=1,
        objective=objective,
        temperature=0.3,
        learn_temperature=None if objective == "decur" else True,
        min_negative_km=0.0 if objective == "decur" else 10.0,
        false_negative_weight=0.25,
        global_batch_size=NUM_PAIRS,
        logits_chunk_size=chunk_size,
    )
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = ContrastiveModel(TinyDualEncoder(), make_objective(config, features_dim=6))
        optimizer = keras.optimizers.SGD(1.0)
    before = [weight.numpy() for weight in model.trainable_variables]
    told = {}
    batches = (
        tf.data.Dataset.from_tensor_slices(make_batch(model.objective.views))
        .batch(NUM_PAIRS)
        .repeat()
    )
    training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=TwoStageLoss(
                encode=lambda batch: model.encode(batch, training=True),
                loss=model.replica_scalars,
                num_micro_batches=num_parts,
            ),
            optimizer=optimizer,
            dataset=lambda first_step: batches,
            num_steps=1,
        ),
        log_dir=tempfile.mkdtemp(),
        on_step=lambda step, num_steps, scalars: told.update(scalars),
    )
    after = [weight.numpy() for weight in model.trainable_variables]
    gradient, weights = (
        np.concatenate([np.ravel(value) for value in values])
        for values in ([old - new for old, new in zip(before, after, strict=True)], after)
    )
    return {**told, "gradient": gradient, "weights": weights}


def take_all(strategies):
    """Return `<objective>/<variant>/<name>` -> value of one step of every objective.

    `strategies` are that of "one" replica and that of "two".
    """
    return {
        f"{objective}/{variant}/{key}": value
        for objective in OBJECTIVES
        for variant, (num_parts, chunk_size) in VARIANTS.items()
        for key, value in take_step(
            strategies[variant.split("/")[0]], objective, num_parts, chunk_size
        ).items()
    }
