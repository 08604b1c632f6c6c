"""DistillTrainer on TFX's artifacts: a refused teacher stops the student."""

import json
import shutil

import pytest
from tfx.types import artifact_utils, standard_artifacts

from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.contracts.published import read_card
from beam_jobs.errors import DataError
from components import data_manifest
from components.blessing import write_blessing
from components.trainers import distill, segment
from models.config import EncoderConfig
from models.distillation.config import DistillConfig, StudentConfig
from models.published import export
from models.segment_config import SegmentConfig
from tests.data.runs.make_fn_args import make_fn_args

pytestmark = pytest.mark.e2e

TEACHER = SegmentConfig(
    sensors=("s2",),
    label_schema="water",
    encoder=EncoderConfig(backbone="small", embedding_dim=8),
    num_steps=2,
    regime="scratch",
    decoder_channels=(8, 8, 8, 8),
    global_batch_size=4,
)
STUDENT = StudentConfig(
    segment=SegmentConfig(**{**vars(TEACHER), "sensors": ("s1",)}),
    distill=DistillConfig(teacher="optical", num_steps=2, global_batch_size=4),
)


def artifact_of(kind, path):
    artifact = kind()
    artifact.uri = str(path)
    return artifact


@pytest.fixture(scope="module")
def inputs(pairs_version, water_version, tmp_path_factory):
    """Inputs of the component with a teacher of two steps, without the blessing."""
    root = tmp_path_factory.mktemp("taught")
    segment.run_fn(make_fn_args(water_version, root / "teacher", TEACHER, name="optical"))
    examples = artifact_of(standard_artifacts.Examples, root / "examples")
    examples.split_names = artifact_utils.encode_split_names(list(layout.SPLITS))
    # Only the train split exists, so reading another one would fail.
    folder = root / "examples/Split-train"
    folder.mkdir(parents=True)
    for path in layout.shard_paths(pairs_version, "train"):
        shutil.copy(path, folder)
    data_manifest.write_manifest(manifest.read(pairs_version), str(root / "manifest"))
    return {
        "pairs": examples,
        "pairs_manifest": artifact_of(standard_artifacts.HyperParameters, root / "manifest"),
        "teacher": artifact_of(standard_artifacts.Model, root / "teacher"),
    }


def distilled(inputs, root, is_blessed):
    """Folder of the model that the component wrote."""
    blessing = artifact_of(standard_artifacts.ModelBlessing, root / "blessing")
    write_blessing(blessing, inputs["teacher"], is_blessed)
    distill.DistillTrainer.test_call(
        **inputs,
        blessing=blessing,
        model=artifact_of(standard_artifacts.Model, root / "model"),
        model_run=artifact_of(standard_artifacts.ModelRun, root / "model_run"),
        name="flood",
        config=settings.canonical_json(STUDENT),
        checkpoints_dir=str(root / "checkpoints"),
        code="x",
    )
    return root / "model/Format-Serving"


def test_student_of_a_blessed_teacher_is_where_the_segment_trainer_starts(
    inputs, water_version, tmp_path, caplog
):
    with caplog.at_level("INFO", logger="terrapair.training"):
        student = distilled(inputs, tmp_path, is_blessed=True)
    steps = [
        (item.component, item.step, item.num_steps)
        for item in caplog.records
        if hasattr(item, "step")
    ]
    assert steps == [("flood", 1, 2), ("flood", 2, 2)]
    assert export.load_segmenter(str(student)).sensors == ("s1",)
    assert read_card(str(student))["teacher"] == f"{inputs['teacher'].uri}/Format-Serving"
    assert json.loads((tmp_path / "model_run/metrics.json").read_text())["train_loss"] > 0
    assert list((tmp_path / "checkpoints").iterdir()) == []

    segment.run_fn(
        make_fn_args(water_version, tmp_path / "own", STUDENT.segment, str(student), name="flood")
    )
    assert read_card(str(tmp_path / "own/Format-Serving"))["started_from"] == {"s1": str(student)}


def test_refused_teacher_labels_nothing_and_says_why(inputs, tmp_path):
    with pytest.raises(DataError) as caught:
        distilled(inputs, tmp_path, is_blessed=False)
    message = str(caught.value)
    assert message.startswith("flood: its teacher 'optical' is refused by its Evaluator")
    assert "\n" not in message
    assert not (tmp_path / "model").exists()
