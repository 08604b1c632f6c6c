"""Pretrain Trainer: pairs -> the encoder's SavedModel and TensorBoard logs.

`create_pretrain_trainer` wires the component; TFX calls `run_fn` in the Trainer. The
training itself is in `models/pretrain.py`.
"""

from __future__ import annotations

import json
import logging

from tfx.components.trainer.component import Trainer
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto.trainer_pb2 import EvalArgs, TrainArgs

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.published import ENCODER_NAME
from components.artifacts import SOURCES, write_metrics
from components.examples import ExampleComponents
from components.publishing import find_published
from components.trainers import workers
from components.trainers.arguments import folders_of, shards_of
from components.trainers.attempts import CHECKPOINTS_DIR
from components.trainers.training_log import LOGGER_NAME, log_steps
from models.config import PretrainConfig
from models.pretrain import run_pretraining

RUN_FN = "components.trainers.pretrain.run_fn"
PUBLISHED_DIR = "published_dir"
"""Key in the custom_config: base folder of the published models.

If it is absent or empty, training starts from scratch.
"""


def create_pretrain_trainer(
    config: PretrainConfig,
    data: ExampleComponents,
    *,
    checkpoints_dir: str,
    published_dir: str = "",
    restart: str = "",
) -> BaseComponent:
    """Return the Trainer "Trainer-pretrain" of the encoder.

    Args:
        config: passed to `run_fn` as JSON in custom_config.
        data: data components of the pairs.
        checkpoints_dir: folder of the run's checkpoints; empty = a training that was
            killed starts over.
        published_dir: base folder of the published models. Training starts from the
            newest encoder there; empty = from scratch.
        restart: another text is another training of the same data, which starts from
            the encoder that is published by then; TFX's cache does not see that one.
    """
    return Trainer(
        run_fn=RUN_FN,
        examples=data.examples.outputs["examples"],
        hyperparameters=data.manifest.outputs["manifest"],
        # TFX requires these two arguments, though the step counts are in the config.
        train_args=TrainArgs(splits=["train"]),
        eval_args=EvalArgs(splits=["eval"]),
        custom_config={
            "config": settings.canonical_json(config),
            "code": source_fingerprint(SOURCES),
            CHECKPOINTS_DIR: checkpoints_dir,
            PUBLISHED_DIR: published_dir,
            "restart": restart,
        },
    ).with_id("Trainer-pretrain")


@workers.shared
def run_fn(fn_args: FnArgs) -> None:
    """Train the encoder and export it into `fn_args.serving_model_dir`.

    With `published_dir` in custom_config, training starts from the newest published
    encoder. That encoder is looked up here and is not an input of the component: if it
    were, each publication would change the input, and a run without new data would
    train again.

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
    start = None if last is None else str(last)
    metrics = run_pretraining(
        config,
        shards_of(fn_args),
        folders_of(fn_args, "pretrain", start),
        warm_start_dir=start,
        on_step=log_steps("pretrain"),
    )
    write_metrics(metrics, fn_args.model_run_dir)
