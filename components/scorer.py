"""Scorer: count what a segmenter got right in each patch of the test split.

A segment Trainer's Model and the Examples of its task -> `test_scores.npz` (counts per
patch) and `test_scores.json` (scores by slice). The Scorer does not decide about
publishing; the Evaluator does. The counting itself is in `models/scores`.
"""

# No `from __future__ import annotations` here: TFX's @component reads the annotations
# as objects, not as text.
import json

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import path_utils

from beam_jobs.contracts.fingerprint import source_fingerprint
from beam_jobs.contracts.locations import Location, locate, staged
from components.artifacts import SOURCES, split_files
from components.data_manifest import read_manifest
from components.examples import ExampleComponents
from components.tfx_types import InputArtifact, OutputArtifact, Parameter, component
from models.published.export import load_segmenter
from models.scores.score_document import make_document
from models.scores.score_file import write_scores
from models.scores.scoring import score_patches

SPLIT = "test"
"""The split that is used neither in training nor to choose a threshold."""
SCORES_FILE = "test_scores.npz"
DOCUMENT_FILE = "test_scores.json"


def scores_path(folder: str) -> Location:
    """Return the file with the counts of each patch in a Scorer's `scores` artifact."""
    return locate(folder) / SCORES_FILE


@component
def Scorer(  # noqa: N802 - TFX names a component after its function
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    manifest: InputArtifact[standard_artifacts.HyperParameters],
    scores: OutputArtifact[simple_artifacts.File],
    batch_size: Parameter[int],
    code: Parameter[str],
) -> None:
    """Score the model on the test split.

    Args:
        model: output of the task's Trainer, the model that the Pusher publishes.
        examples: Examples of the task; only the test split is read.
        manifest: output of their DataManifest.
        scores: receives both files.
        batch_size: patches at a time.
        code: fingerprint of the code, because TFX's cache does not see changed code.

    Raises:
        ValueError: the shards have no labels, or see `score_patches`.
    """
    del code
    schema = read_manifest(manifest.uri).schema
    if schema is None:
        raise ValueError(
            f"{manifest.uri}: the shards have no label schema, so nothing can be scored on them: "
            "build them with build-labels"
        )
    found = score_patches(
        load_segmenter(path_utils.serving_model_path(model.uri)),
        split_files(examples, SPLIT),
        schema.class_names,
        batch_size=batch_size,
    )
    folder = locate(scores.uri)
    with staged(folder / SCORES_FILE) as file:
        write_scores(file, found)
    with staged(folder / DOCUMENT_FILE) as file:
        file.write_text(json.dumps(make_document(found, SPLIT), indent=1, allow_nan=False) + "\n")


def create_scorer(
    name: str, model: BaseComponent, data: ExampleComponents, batch_size: int
) -> BaseComponent:
    """Return the Scorer "Scorer-<task>" of one task's model.

    Args:
        name: the task's name.
        model: segment Trainer of the task.
        data: data components of the task's labelled patches.
        batch_size: patches at a time. The batch size of training always fits, since
            training needs more memory for the same batch.
    """
    return Scorer(
        model=model.outputs["model"],
        examples=data.examples.outputs["examples"],
        manifest=data.manifest.outputs["manifest"],
        batch_size=batch_size,
        code=source_fingerprint(SOURCES),
    ).with_id(f"Scorer-{name}")
