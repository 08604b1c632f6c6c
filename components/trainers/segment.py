"""Segment Trainer: labelled patches -> one task's segmenter and TensorBoard logs.

Training starts from the pretrained encoder, or from the task's distilled student.
`create_segment_trainer` wires the component; TFX calls `run_fn` in the Trainer. The
training itself is in `models/segment.py`.
"""

from __future__ import annotations

import json

from tfx.components.trainer.component import Trainer
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.proto.trainer_pb2 import EvalArgs, TrainArgs

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.published import read_card
from components.artifacts import SOURCES, write_metrics
from components.examples import ExampleComponents
from components.trainers import workers
from components.trainers.arguments import folders_of, shards_of
from components.trainers.attempts import (
    CHECKPOINTS_DIR,
    ENCODERS,
    hash_encoders,
)
from components.trainers.training_log import log_steps
from models.published.export import DISTILLATION
from models.segment import SegmenterSources, run_segmentation
from models.segment_config import SegmentConfig

RUN_FN = "components.trainers.segment.run_fn"


def create_segment_trainer(
    name: str,
    config: SegmentConfig,
    *,
    data: ExampleComponents,
    start: BaseComponent | None,
    checkpoints_dir: str,
) -> BaseComponent:
    """Return the Trainer "Trainer-<task>" of one task.

    Args:
        name: the task's name.
        config: passed to `run_fn` as JSON in custom_config.
        data: data components of the task's labelled patches.
        start: the pretrain Trainer or the task's DistillTrainer; training starts from
            its model. None when `config.encoder_paths` names all encoders.
        checkpoints_dir: folder of the run's checkpoints; empty = a training that was
            killed starts over.
    """
    return Trainer(
        run_fn=RUN_FN,
        examples=data.examples.outputs["examples"],
        hyperparameters=data.manifest.outputs["manifest"],
        base_model=start.outputs["model"] if start else None,
        train_args=TrainArgs(splits=["train"]),
        eval_args=EvalArgs(splits=["eval"]),
        custom_config={
            "name": name,
            "config": settings.canonical_json(config),
            "code": source_fingerprint(SOURCES),
            ENCODERS: hash_encoders(config.encoder_paths),
            CHECKPOINTS_DIR: checkpoints_dir,
        },
    ).with_id(f"Trainer-{name}")


@workers.shared
def run_fn(fn_args: FnArgs) -> None:
    """Train one task's segmenter and export it into `fn_args.serving_model_dir`.

    Training starts from `fn_args.base_model`, or from the encoders that the config
    names.

    Raises:
        ValueError: no manifest, no encoder, or a split without shards.
    """
    name = fn_args.custom_config["name"]
    config = settings.from_dict(SegmentConfig, json.loads(fn_args.custom_config["config"]), name)
    if not fn_args.base_model and config.needs_pretraining:
        raise ValueError(
            f"{name}: fn_args.base_model is empty: wire the Trainer's base_model to the pretrain "
            "Trainer"
        )
    base_model = fn_args.base_model or None
    is_student = base_model is not None and read_card(base_model)["task"] == DISTILLATION
    metrics = run_segmentation(
        config,
        shards_of(fn_args),
        folders_of(fn_args, name, base_model),
        sources=SegmenterSources(
            encoder=None if is_student else base_model,
            student=base_model if is_student else None,
        ),
        name=name,
        on_step=log_steps(name),
    )
    write_metrics(metrics, fn_args.model_run_dir)
