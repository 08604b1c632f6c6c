"""Trains the same models on one replica and on two; writes losses and weights to an .npz.

A program of its own, since logical devices must be set before TensorFlow starts. Usage:
replica_parity_worker.py OUT.npz PAIRS_VERSION_DIR LABELS_VERSION_DIR FOLDER

The folder gets a segmenter, and the metrics of a pretraining as `metrics.json`.
"""

import json
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
import objective_steps
import tensorflow as tf
import whole_trainings

from models.config import EncoderConfig, OptimizerConfig
from models.distillation.edges import edge_weights
from models.distillation.loss import agreement, distillation_loss
from models.encoders import SensorEncoder
from models.losses import MaskedCrossentropy
from models.optimization import regimes
from models.optimization.optimizers import Lars, LossScaled, make_optimizer
from models.pixel_losses.config import LossConfig
from models.pixel_losses.segment_loss import make_segment_loss
from models.segment_config import SegmentConfig
from models.segmenter import Segmenter
from models.training import distribution, training
from models.training.evaluations import EvalRule, Evaluations
from models.training.step_log import NonFiniteLossError
from tests.data.networks.pair_loss import pair_loss

GLOBAL_BATCH_SIZE = 8


def contrastive_without_batch_norm(rng):
    batch = {
        sensor: rng.normal(size=(GLOBAL_BATCH_SIZE, 6)).astype(np.float32)
        for sensor in ("s1", "s2")
    }

    def build():
        inputs = {sensor: keras.Input((6,), name=sensor) for sensor in ("s1", "s2")}
        outputs = {
            sensor: keras.layers.UnitNormalization()(
                keras.layers.Dense(5, activation="tanh")(inputs[sensor])
            )
            for sensor in ("s1", "s2")
        }
        return keras.Model(inputs, outputs)

    return batch, build, contrastive_loss


def contrastive_resnet(rng):
    """A real encoder with synchronized batch normalization against fixed embeddings."""
    pixels = rng.normal(-12.0, 4.0, (GLOBAL_BATCH_SIZE, 32, 32, 2)).astype(np.float32)
    # No data on the first replica only: its batch statistics must still be the global
    # ones.
    pixels[: GLOBAL_BATCH_SIZE // 2, :16] = np.nan
    other = rng.normal(size=(GLOBAL_BATCH_SIZE, 128)).astype(np.float32)
    batch = {"pixels": pixels, "s2": other / np.linalg.norm(other, axis=-1, keepdims=True)}

    def build():
        encoder = SensorEncoder(
            sensor="s1", bands=("VV", "VH"), mean=(-12, -12), std=(4, 4), backbone="small"
        )
        return keras.Model(
            encoder.input, keras.layers.UnitNormalization()(encoder.output["pooled"])
        )

    def compute_loss(model, b):
        return pair_loss(model(b["pixels"], training=True), b["s2"])

    return batch, build, compute_loss


def contrastive_loss(model, batch):
    embeddings = model(batch, training=True)
    return pair_loss(embeddings["s1"], embeddings["s2"])


def masked_crossentropy(rng):
    label = rng.integers(0, 3, (GLOBAL_BATCH_SIZE, 4, 4)).astype(np.uint8)
    # The two replicas get very different numbers of labelled pixels.
    label[: GLOBAL_BATCH_SIZE // 2, 1:] = 255
    batch = {
        "pixels": rng.normal(size=(GLOBAL_BATCH_SIZE, 4, 4, 2)).astype(np.float32),
        "label": label,
    }

    def build():
        pixels = keras.Input((4, 4, 2), name="pixels")
        return keras.Model(pixels, keras.layers.Conv2D(3, 3, padding="same")(pixels))

    return (
        batch,
        build,
        lambda model, b: MaskedCrossentropy()(b["label"], model(b["pixels"], training=True)),
    )


def weighted_contrastive(rng):
    """Very different sums of weights on the two replicas."""
    batch, build, _ = contrastive_without_batch_norm(rng)
    weights = np.linspace(0.0, 1.0, GLOBAL_BATCH_SIZE, dtype=np.float32)

    def compute_loss(model, b):
        embeddings = model({sensor: b[sensor] for sensor in ("s1", "s2")}, training=True)
        return pair_loss(embeddings["s1"], embeddings["s2"], weight=b["weight"])

    return {**batch, "weight": weights}, build, compute_loss


def of_segmentation(config):
    """A case of a loss with patch weights, on replicas that get very different labels."""

    def case(rng):
        batch, build, _ = masked_crossentropy(rng)
        loss = make_segment_loss(config, ("dry", "water", "snow"), {"0": 60, "1": 30, "2": 10})
        weights = np.linspace(0.1, 1.0, GLOBAL_BATCH_SIZE, dtype=np.float32)
        batch = {**batch, "weight": weights}
        return (
            batch,
            build,
            lambda model, b: loss(b["label"], model(b["pixels"], training=True), b["weight"]),
        )

    return case


def distillation(rng):
    """Of a student whose teacher sees little of what the second replica gets."""
    batch, build, _ = masked_crossentropy(rng)
    batch = {
        "pixels": batch["pixels"],
        "label": batch["label"],
        "teacher": rng.normal(0.0, 2.0, (*batch["label"].shape, 3)).astype(np.float32),
    }

    def compute_loss(model, b):
        logits = model(b["pixels"], training=True)
        weight = edge_weights(b["label"], 4.0, 1)
        return {
            "loss": distillation_loss(b["teacher"], logits, weight, 2.0),
            "agreement": agreement(b["teacher"], logits, weight),
        }

    return batch, build, compute_loss


CASES = {
    "distillation": distillation,
    "contrastive_without_batch_norm": contrastive_without_batch_norm,
    "masked_crossentropy": masked_crossentropy,
    "contrastive_resnet": contrastive_resnet,
    "weighted_contrastive": weighted_contrastive,
    "weighted_crossentropy": of_segmentation(LossConfig()),
    "balanced_focal": of_segmentation(LossConfig(terms={"focal": 1.0}, class_weights="balanced")),
    "dice": of_segmentation(LossConfig(terms={"dice": 1.0})),
    "lovasz": of_segmentation(LossConfig(terms={"lovasz": 1.0})),
    "sum_of_losses": of_segmentation(LossConfig(terms={"crossentropy": 0.5, "dice": 1.0})),
}


def train(strategy, batch, build, compute_loss):
    """Return loss and gradients of the first step (old minus new weights) and the new weights."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = build()
        optimizer = keras.optimizers.SGD(1.0)
    before = [weight.numpy() for weight in model.trainable_variables]
    loss = training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=lambda b: compute_loss(model, b),
            optimizer=optimizer,
            dataset=lambda first_step: tf.data.Dataset.from_tensor_slices(batch)
            .batch(GLOBAL_BATCH_SIZE)
            .repeat(),
            num_steps=1,
        ),
        log_dir=tempfile.mkdtemp(),
    )
    after = [weight.numpy() for weight in model.trainable_variables]
    others = [weight.numpy() for weight in model.non_trainable_variables]
    flat = [
        np.concatenate([w.ravel() for w in weights]) if weights else np.zeros(0)
        for weights in (before, after, others)
    ]
    return {
        "loss": loss,
        "gradient": flat[0] - flat[1],
        "weights": flat[1],
        "moving_statistics": flat[2],
    }


def steps_of_scaled_lars(strategy):
    """Return the weights after three steps; in the second, gradients overflow on the last rows."""
    rows = np.random.default_rng(0).normal(size=(3, GLOBAL_BATCH_SIZE, 2)).astype(np.float32)
    rows[1, -1] = 1e36
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input((2,))
        model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
        optimizer = LossScaled(Lars(0.1, decay=0.1))
    training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=lambda b: tf.reduce_mean(model(b["x"])) / strategy.num_replicas_in_sync,
            optimizer=optimizer,
            dataset=lambda first_step: tf.data.Dataset.from_tensor_slices({"x": rows}).repeat(),
            num_steps=3,
        ),
        log_dir=tempfile.mkdtemp(),
    )
    return np.concatenate([weight.numpy().ravel() for weight in model.trainable_variables])


def weights_after_training(strategy, paces=()):
    """Return the weights after three steps with the optimizer of real runs."""
    keras.utils.set_random_seed(0)
    batch, build, compute_loss = masked_crossentropy(np.random.default_rng(0))
    with strategy.scope():
        model = build()
        optimizer = make_optimizer(
            OptimizerConfig(learning_rate=0.1, weight_decay=0.1), 3, paces=paces
        )
    training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=lambda b: compute_loss(model, b),
            optimizer=optimizer,
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            num_steps=3,
        ),
        log_dir=tempfile.mkdtemp(),
    )
    return np.concatenate([weight.numpy().ravel() for weight in model.trainable_variables])


def best_step(strategy):
    """Return the step that is kept of five, and its weights on every replica.

    The score is largest where the mean weight is nearest to a value that it passes.
    """
    keras.utils.set_random_seed(0)
    batch, build, compute_loss = masked_crossentropy(np.random.default_rng(0))
    with strategy.scope():
        model = build()
        optimizer = keras.optimizers.SGD(0.5)
    kernel = model.trainable_variables[0]
    start = kernel.numpy()

    def measure():
        return {"score": -abs(float(np.linalg.norm(kernel.numpy() - start)) - PASSED)}

    evaluations = Evaluations(
        model, measure, EvalRule(score="score", every=1, keeps_best=True, patience=2)
    )
    training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=lambda b: compute_loss(model, b),
            optimizer=optimizer,
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            num_steps=9,
            evaluations=evaluations,
        ),
        log_dir=tempfile.mkdtemp(),
    )
    copies = strategy.experimental_local_results(strategy.run(lambda: tf.identity(kernel.value)))
    return {
        "steps": [evaluations.kept_step, evaluations.history[-1].step],
        "scores": [one.score for one in evaluations.history],
        "weights": np.stack(copies),
    }


PASSED = 0.7
"""Way of the weights of `best_step`, between those of its second and its fourth step."""


def gradual_unfreezing(strategy):
    """Return the weights of a segmenter's head and levels, deepest first, after each step."""
    config = SegmentConfig(
        sensors=("s1",),
        label_schema="water",
        encoder=EncoderConfig(backbone="small"),
        num_steps=6,
        head="linear",
        unfreeze_after=4 / 6,
    )
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    batch = {
        "s1": rng.normal(-12.0, 4.0, (GLOBAL_BATCH_SIZE, 32, 32, 2)).astype(np.float32),
        "label": rng.integers(0, 2, (GLOBAL_BATCH_SIZE, 32, 32)),
    }
    with strategy.scope():
        encoder = SensorEncoder(
            sensor="s1", bands=("VV", "VH"), mean=(-12, -12), std=(4, 4), backbone="small"
        )
        model = Segmenter(
            encoders={"s1": encoder}, num_classes=2, decoder_channels=(), head="linear"
        )
        # Not AdamW: it divides by a gradient's size, and of one near 0 the order of the
        # sum decides.
        rates = OptimizerConfig(optimizer="lars", learning_rate=5.0, warmup_fraction=0.0)
        optimizer = make_optimizer(rates, config.num_steps, paces=regimes.make_paces(model, config))
    levels = encoder.variables_by_level()[::-1]
    of_encoder = {id(variable) for level in levels for variable in level}
    head = [variable for variable in model.trainable_variables if id(variable) not in of_encoder]

    def snapshot():
        parts = [
            np.concatenate([variable.numpy().ravel() for variable in part])
            for part in (head, *levels)
        ]
        return {f"part_{index}": values for index, values in enumerate(parts)}

    seen = [snapshot()]
    training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=lambda b: MaskedCrossentropy()(
                b["label"], model({"s1": b["s1"]}, training=True)["logits"]
            ),
            optimizer=optimizer,
            dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
            num_steps=config.num_steps,
            check_every=1,
            check=lambda step, loss: seen.append(snapshot()),
        ),
        log_dir=tempfile.mkdtemp(),
    )
    return {name: np.stack([entry[name] for entry in seen]) for name in seen[0]}


def message_of_a_nan(strategy, log_dir):
    """What a loss that is no number says, with ids on both replicas."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        optimizer = keras.optimizers.SGD()
    names = [f"patch-{index}" for index in range(GLOBAL_BATCH_SIZE)]
    batch = {"x": np.full((GLOBAL_BATCH_SIZE, 1), np.nan, np.float32), "patch_id": np.array(names)}
    try:
        training.train(
            strategy,
            training.Fit(
                model=model,
                compute_loss=lambda b: tf.reduce_mean(model(b["x"])),
                optimizer=optimizer,
                dataset=lambda first_step: tf.data.Dataset.from_tensors(batch).repeat(),
                num_steps=3,
            ),
            log_dir=log_dir,
        )
    except NonFiniteLossError as error:
        return str(error)
    return "no error"


def resume(one, two):
    """Return the weights after 4 steps on one replica, and resumed there after 2 steps on two."""

    def attempt(strategy, num_steps, folder):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = keras.Sequential(
                [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
            )
            model.layers[0].synchronized = True
            optimizer = keras.optimizers.AdamW(0.1)
        rows = tf.random.stateless_normal([4, GLOBAL_BATCH_SIZE, 3], [0, 0])
        training.train(
            strategy,
            training.Fit(
                model=model,
                compute_loss=lambda b: tf.reduce_mean((model(b["x"], training=True) - 1.0) ** 2)
                / strategy.num_replicas_in_sync,
                optimizer=optimizer,
                dataset=lambda first_step: tf.data.Dataset.from_tensor_slices({"x": rows}).skip(
                    first_step
                ),
                num_steps=num_steps,
            ),
            log_dir=tempfile.mkdtemp(),
            checkpoint_dir=folder,
        )
        return np.concatenate([variable.numpy().ravel() for variable in model.variables])

    folder = tempfile.mkdtemp()
    attempt(two, 2, folder)
    return attempt(one, 4, None), attempt(one, 4, folder)


def main(path, pairs_dir, labels_dir, folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Each graph runs once or a few times: what optimizing it costs is not earned back.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    mirrored = distribution.get_strategy()
    results = {"num_replicas": mirrored.num_replicas_in_sync}
    for case_name, case in CASES.items():
        for name, strategy in (("one", tf.distribute.get_strategy()), ("two", mirrored)):
            arguments = case(np.random.default_rng(0))
            for key, value in train(strategy, *arguments).items():
                results[f"{case_name}/{name}/{key}"] = value
    for name, strategy in (("one", tf.distribute.get_strategy()), ("two", mirrored)):
        results[f"scaled_lars/{name}"] = steps_of_scaled_lars(strategy)
        results[f"adamw/{name}/weights"] = weights_after_training(strategy)
        results[f"paced/{name}/weights"] = weights_after_training(
            strategy, paces=((0.5, 1), (1.0, 0))
        )
        for key, values in best_step(strategy).items():
            results[f"best/{name}/{key}"] = values
        for key, values in gradual_unfreezing(strategy).items():
            results[f"gradual/{name}/{key}"] = values
    with tempfile.TemporaryDirectory() as log_dir:
        results["message"] = message_of_a_nan(mirrored, log_dir)
    one = tf.distribute.get_strategy()
    results["undisturbed"], results["resumed"] = resume(one, mirrored)
    results |= {
        f"objectives/{name}": value
        for name, value in objective_steps.take_all({"one": one, "two": mirrored}).items()
    }
    np.savez(path, **results)
    metrics = whole_trainings.run_pretraining(pairs_dir, f"{folder}/pretrained")
    Path(folder, "metrics.json").write_text(json.dumps(metrics))
    whole_trainings.run_segmentation(labels_dir, f"{folder}/segmented")


if __name__ == "__main__":
    main(*sys.argv[1:])
