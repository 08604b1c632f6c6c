"""One worker of several, or the only one: trains, resumes from the checkpoint, saves the result.

A program of its own, since a process is one worker. Usage, with TF_CONFIG:
multi_worker_worker.py FOLDER NAME. The only worker may run in any process.
"""

import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from models import input_pipeline
from models.config import InputConfig
from models.optimization.optimizers import LossScaled
from models.reading.epochs import EpochPlan
from models.training import distribution, replicas, training
from models.training.evaluations import EvalRule, Evaluations
from models.training.steps import TwoStageLoss
from tests.data.networks.pair_loss import pair_loss

GLOBAL_BATCH_SIZE = 12
NUM_SERVED = 46


SCORES = {True: [0.1, 0.3, 0.2, 0.1, 0.9], False: [0.1, 0.2, 0.4, 0.5, 0.6]}
"""Scores after each step as the chief measures them, and as another worker would."""


def attempt(
    strategy,
    folder,
    name,
    num_steps,
    num_parts=1,
    checkpoint_dir=None,
    is_scaled=False,
    is_evaluated=False,
    **more,
):
    """Return loss and variables of a contrastive training with negatives of all workers."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = {sensor: keras.Input((6,), name=sensor) for sensor in ("s1", "s2")}
        outputs = {}
        for sensor in ("s1", "s2"):
            hidden = keras.layers.Dense(5, activation="tanh")(inputs[sensor])
            # In parts, statistics would be those of the parts.
            hidden = (
                keras.layers.BatchNormalization(synchronized=True)(hidden)
                if num_parts == 1
                else hidden
            )
            outputs[sensor] = keras.layers.UnitNormalization()(hidden)
        model = keras.Model(inputs, outputs)
        optimizer = keras.optimizers.AdamW(0.05)
        optimizer = LossScaled(optimizer) if is_scaled else optimizer
    rows = {
        sensor: tf.random.stateless_normal([9, GLOBAL_BATCH_SIZE, 6], [0, seed])
        for seed, sensor in enumerate(inputs)
    }
    rows["patch_id"] = tf.constant(
        [[f"{step}-{row}" for row in range(GLOBAL_BATCH_SIZE)] for step in range(9)]
    )
    scores = iter(SCORES[distribution.is_chief(strategy)])
    evaluations = Evaluations(
        model,
        lambda: {"score": next(scores)},
        EvalRule(score="score", every=1, keeps_best=True, patience=2),
    )
    loss = training.train(
        strategy,
        training.Fit(
            model=model,
            compute_loss=TwoStageLoss(
                encode=lambda batch: model(batch, training=True),
                loss=lambda encoded: {"loss": pair_loss(encoded["s1"], encoded["s2"])},
                num_micro_batches=num_parts,
            ),
            optimizer=optimizer,
            dataset=lambda first_step: tf.data.Dataset.from_tensor_slices(rows).skip(first_step),
            num_steps=num_steps,
            evaluations=evaluations if is_evaluated else None,
            checkpoint_every=2 if "on_step" in more else 0,
        ),
        log_dir=f"{folder}/logs-{name}",
        checkpoint_dir=checkpoint_dir,
        **more,
    )
    return {
        "kept_step": evaluations.kept_step,
        "num_evaluations": len(evaluations.history),
        "loss": loss,
        "variables": np.concatenate([variable.numpy().ravel() for variable in model.variables]),
    }


def wait_for_checkpoint(folder):
    """Wait for the chief, which may still be writing."""
    while not list(Path(folder).glob("step-*/progress.json")):
        time.sleep(0.05)


def served_ids(strategy, shards):
    """Return the patch ids that this worker gets of four epochs that both serve and share."""
    dataset = input_pipeline.train_dataset(
        shards,
        input_pipeline.Features(num_bands={"s1": 2}, with_patch_id=True),
        # Two rows a step, so that no share of an epoch is left out.
        EpochPlan(num_examples=NUM_SERVED, batch_size=2, shuffle_buffer=64, seed=0),
        reading=InputConfig(deterministic=False, data_service="workers"),
    )
    # In step with each other, as in a training.
    step = tf.function(lambda: strategy.run(lambda: replicas.sum_over_replicas(tf.constant(1.0))))
    batches = iter(training._distribute(strategy, dataset))
    ids = []
    for _ in range(4 * NUM_SERVED // 2):
        step()
        (own,) = strategy.experimental_local_results(next(batches)["patch_id"])
        ids += own.numpy().tolist()
    return np.array(ids, np.uint8)


def lose_one(strategy, folder, name):
    """Train two of four steps, and kill this process when the chief has saved them.

    The chief goes on, and waits for this process in vain.
    """
    kept = f"{folder}/kept-lost"

    def on_step(step, *_):
        if step == 2 and not distribution.is_chief(strategy):
            wait_for_checkpoint(kept)
            os.kill(os.getpid(), signal.SIGKILL)

    with distribution.named_loss():
        attempt(strategy, folder, name, 4, checkpoint_dir=kept, on_step=on_step)


def go_on(strategy, folder, name):
    """Train the rest of what `lose_one` began, with any number of workers."""
    found = attempt(strategy, folder, name, 4, checkpoint_dir=f"{folder}/kept-lost")
    np.savez(f"{folder}/{name}.npz", num_replicas=strategy.num_replicas_in_sync, **found)


def main(folder, name):
    strategy = distribution.get_strategy()
    if name.startswith("again"):
        go_on(strategy, folder, name)
        return
    results = {
        "num_replicas": strategy.num_replicas_in_sync,
        "is_chief": distribution.is_chief(strategy),
    }
    kept = f"{folder}/kept-{name.split('-')[0]}"
    attempts = {
        "whole": attempt(strategy, folder, name, 4),
        "parts": attempt(strategy, folder, name, 4, num_parts=2),
        "scaled": attempt(strategy, folder, name, 4, is_scaled=True),
        "evaluated": attempt(
            strategy, folder, name, 5, checkpoint_dir=f"{kept}-evaluated", is_evaluated=True
        ),
        "first": attempt(strategy, folder, name, 2, checkpoint_dir=kept),
    }
    wait_for_checkpoint(kept)
    attempts["resumed"] = attempt(strategy, folder, name, 4, checkpoint_dir=kept)
    if name != "one":
        results["served"] = served_ids(
            strategy, sorted(map(str, Path(folder).glob("served/**/*.gz")))
        )
    results |= {
        f"{kind}/{key}": value for kind, values in attempts.items() for key, value in values.items()
    }
    np.savez(f"{folder}/{name}.npz", **results)
    if name != "one":
        lose_one(strategy, folder, name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
