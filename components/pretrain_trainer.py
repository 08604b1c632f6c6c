"""Pretrain Trainer: pairs -> the encoder's SavedModel, TensorBoard logs beside it.

`create_pretrain_trainer` wires the component; TFX calls `run_fn` in the Trainer. All
training is in `models`.
"""

from __future__ import annotations

import json
import logging
import os

import tensorflow as tf
from tfx.components.trainer.component import Trainer
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto.trainer_pb2 import EvalArgs, TrainArgs

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from components.attempts import CHECKPOINTS_DIR, checkpoint_dir
from components.data_manifest import manifest_from_hyperparameters
from components.examples import ExampleComponents
from components.publishing import ENCODER_NAME, find_published
from components.training_log import LOGGER_NAME, log_steps
from models.config import PretrainConfig
from models.pretrain import run_pretraining

RUN_FN = "components.pretrain_trainer.run_fn"
SOURCES = ("models", "beam_jobs/contracts", "components")
PUBLISHED_DIR = "published_dir"
"""Key of the custom_config: base folder of the published models; absent or empty = training starts from scratch."""

METRICS_FILE = "metrics.json"
"""Final metrics of a training, in its model_run folder: what the report reads."""


def create_pretrain_trainer(
    config: PretrainConfig, data: ExampleComponents, checkpoints_dir: str, published_dir: str = ""
) -> BaseComponent:
    """Trainer "Trainer-pretrain" of the encoder.

    Args:
        config: crosses the TFX boundary as JSON in custom_config.
        data: data components of the pairs.
        checkpoints_dir: of the run; empty = a killed training starts over.
        published_dir: base folder of the published models, to start from the newest
            encoder there; empty = from scratch.
    """
    return Trainer(
        run_fn=RUN_FN,
        examples=data.examples.outputs["examples"],
        hyperparameters=data.manifest.outputs["manifest"],
        # The step counts live in the config; TFX wants these two arguments all the
        # same.
        train_args=TrainArgs(splits=["train"]),
        eval_args=EvalArgs(splits=["eval"]),
        custom_config={
            "config": settings.canonical_json(config),
            "code": source_fingerprint(SOURCES),
            CHECKPOINTS_DIR: checkpoints_dir,
            PUBLISHED_DIR: published_dir,
        },
    ).with_id("Trainer-pretrain")


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the encoder into `fn_args.serving_model_dir`; starts from the newest published one if it is to.

    The encoder is looked up here and is no input of the component: what was just
    published would be another input, and a run without new data would train again.

    Raises:
        ValueError: no manifest, a split without shards, or a published encoder that
            does not fit.
    """
    config = settings.from_dict(
        PretrainConfig, json.loads(fn_args.custom_config["config"]), "pretrain"
    )
    published_dir = fn_args.custom_config.get(PUBLISHED_DIR)
    last = find_published(published_dir, ENCODER_NAME) if published_dir else None
    if last is not None:
        logging.getLogger(LOGGER_NAME).info("pretrain starts from %s", last)
    metrics = run_pretraining(
        config,
        manifest_from_hyperparameters(fn_args.hyperparameters),
        list_files(fn_args.train_files),
        list_files(fn_args.eval_files),
        fn_args.serving_model_dir,
        fn_args.model_run_dir,
        on_step=log_steps("pretrain"),
        warm_start_dir=None if last is None else str(last),
        checkpoint_dir=checkpoint_dir(fn_args, "pretrain", str(last or "")),
    )
    write_metrics(metrics, fn_args.model_run_dir)


def list_files(patterns: list[str]) -> list[str]:
    """The files behind TFX's patterns, sorted.

    Raises:
        ValueError: no file matches: the split is empty.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(f"no file matches {patterns}: the split is empty")
    return files


def write_metrics(metrics: dict[str, float], model_run_dir: str) -> None:
    """Writes the final metrics beside the TensorBoard logs."""
    tf.io.gfile.makedirs(model_run_dir)
    with tf.io.gfile.GFile(os.path.join(model_run_dir, METRICS_FILE), "w") as file:
        file.write(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
