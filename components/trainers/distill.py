"""DistillTrainer: train a task's student on the answers of a blessed teacher.

Model and ModelBlessing of the teacher, Examples of the unlabeled pairs, pretrained
encoder -> a Model that the task's segment Trainer starts from, and TensorBoard logs.
TFX's Trainer takes one model and no blessing, so this is a component of its own. The
training itself is in `models/distillation`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import json
from dataclasses import dataclass

from tfx.components.util import model_utils
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from beam_jobs.contracts import settings
from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.errors import RefusedError
from components.artifacts import SOURCES, split_files, write_metrics
from components.data_manifest import read_manifest
from components.examples import ExampleComponents
from components.tfx_types import (
    InputArtifact,
    OptionalInputArtifact,
    OutputArtifact,
    Parameter,
    component,
)
from components.trainers.attempts import hash_encoders, hash_models, training_dir
from components.trainers.training_log import log_steps
from models.distillation.config import StudentConfig
from models.distillation.train import StudentSources, run_distillation
from models.training.scaffold import Folders, Shards


@component
def DistillTrainer(  # noqa: N802, D417 - TFX names a component after its function
    pairs: InputArtifact[standard_artifacts.Examples],
    pairs_manifest: InputArtifact[standard_artifacts.HyperParameters],
    teacher: InputArtifact[standard_artifacts.Model],
    blessing: InputArtifact[standard_artifacts.ModelBlessing],
    model: OutputArtifact[standard_artifacts.Model],
    model_run: OutputArtifact[standard_artifacts.ModelRun],
    name: Parameter[str],
    config: Parameter[str],
    checkpoints_dir: Parameter[str],
    code: Parameter[str],
    encoders: Parameter[str] = "{}",
    encoder: OptionalInputArtifact[standard_artifacts.Model] = None,
) -> None:
    """Train the student, if its teacher is blessed.

    Args:
        pairs: Examples of the pairs; only the train split is read.
        pairs_manifest: output of their DataManifest.
        teacher: output of the segment Trainer of the teacher's task.
        blessing: output of the teacher's Evaluator.
        name: name of the student's task.
        config: StudentConfig as JSON.
        checkpoints_dir: folder of the run's checkpoints; empty = a training that was
            killed starts over.
        code: fingerprint of the code, because TFX's cache does not see changed code.
        encoders: JSON of `hash_encoders` of the student's config.
        encoder: output of the pretrain Trainer; None when the student's config names
            all encoders or needs none.

    Raises:
        RefusedError: the teacher is refused.
    """
    student = settings.from_dict(StudentConfig, json.loads(config), name)
    if not model_utils.is_model_blessed(blessing):
        raise RefusedError(
            f"{name}: its teacher {student.distill.teacher!r} is refused by its Evaluator, so "
            f"{name} is not trained: improve the teacher, lower its thresholds, or remove "
            f"`distill` from {name}",
            "teacher_refused",
        )
    manifest = read_manifest(pairs_manifest.uri)
    teacher_dir = path_utils.serving_model_path(teacher.uri)
    encoder_dir = path_utils.serving_model_path(encoder.uri) if encoder is not None else None
    models = hash_models(teacher_dir, encoder_dir)
    training = (config, code, encoders, json.loads(manifest.to_json()), models)
    metrics = run_distillation(
        student,
        Shards(manifest=manifest, train=tuple(split_files(pairs, "train"))),
        Folders(
            output=path_utils.serving_model_dir(model.uri),
            logs=model_run.uri,
            checkpoints=training_dir(checkpoints_dir, f"{name}-distill", *training),
        ),
        sources=StudentSources(teacher=teacher_dir, encoder=encoder_dir),
        name=name,
        on_step=log_steps(name),
    )
    write_metrics(metrics, model_run.uri)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Components of a teacher's task.

    Attributes:
        trainer: segment Trainer, whose model labels the pairs.
        evaluator: Evaluator, whose blessing decides whether it may.
    """

    trainer: BaseComponent
    evaluator: BaseComponent


def create_distill_trainer(
    name: str,
    config: StudentConfig,
    *,
    pairs: ExampleComponents,
    teacher: Teacher,
    encoder: BaseComponent | None,
    checkpoints_dir: str,
) -> BaseComponent:
    """Return the DistillTrainer "DistillTrainer-<task>" of one student.

    Args:
        name: name of the student's task.
        config: passed to the component as JSON.
        pairs: data components of the pairs.
        teacher: components of the teacher's task.
        encoder: the pretrain Trainer; None when the student needs no pretraining of
            this run.
        checkpoints_dir: folder of the run's checkpoints; empty = a training that was
            killed starts over.
    """
    return DistillTrainer(
        pairs=pairs.examples.outputs["examples"],
        pairs_manifest=pairs.manifest.outputs["manifest"],
        teacher=teacher.trainer.outputs["model"],
        blessing=teacher.evaluator.outputs["blessing"],
        name=name,
        config=settings.canonical_json(config),
        checkpoints_dir=checkpoints_dir,
        code=source_fingerprint(SOURCES),
        encoders=json.dumps(hash_encoders(config.segment.encoder_paths)),
        **({"encoder": encoder.outputs["model"]} if encoder is not None else {}),
    ).with_id(f"DistillTrainer-{name}")
