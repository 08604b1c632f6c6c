"""EncoderProbe on TFX's artifacts, and the effect of its blessing on Pusher and gate."""

import json
import shutil

import pytest
from tfx.components.pusher import executor as pusher
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.proto.pusher_pb2 import PushDestination
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts
from tfx.utils import proto_utils

from beam_jobs.contracts import layout, manifest, settings
from beam_jobs.errors import DataError
from components import blessing, encoder_probe
from components.publishing import find_published
from components.trainers import pretrain
from models.config import EncoderConfig, PretrainConfig
from models.drift.patch_columns import read_columns
from models.drift.reference import FOLDER, DataReference, read_reference
from models.drift.summary import summarize
from models.encoder_probe.config import ProbeConfig
from tests.data.runs.make_artifacts import artifact_of, import_version

ASKS_NOTHING = ProbeConfig(
    task="flood",
    min_recall_over_chance=0.0,
    min_spread=0.0,
    min_effective_rank=0.0,
    min_gain_over_random=-1.0,
)
ASKS_TOO_MUCH = ProbeConfig(task="flood", min_recall_over_chance=1000.0)


@pytest.fixture(scope="module")
def inputs(pairs_version, water_version, tmp_path_factory):
    """Inputs of EncoderProbe around an encoder of two steps."""
    root = tmp_path_factory.mktemp("probed")
    config = PretrainConfig(
        encoder=EncoderConfig(backbone="small", embedding_dim=8),
        num_steps=2,
        global_batch_size=4,
        num_eval_batches=1,
    )
    pretrain.run_fn(
        FnArgs(
            train_files=[str(pairs_version / "train" / "*")],
            eval_files=[str(pairs_version / "eval" / "*")],
            serving_model_dir=str(root / "model" / "Format-Serving"),
            model_run_dir=str(root / "model_run"),
            hyperparameters=json.loads((pairs_version / "manifest.json").read_text()),
            custom_config={"config": settings.canonical_json(config)},
        )
    )
    pairs, pairs_manifest = import_version(pairs_version, root / "pairs")
    labels, labels_manifest = import_version(water_version, root / "labels")
    # The probe must not read the test split, so it is removed.
    for examples in (pairs, labels):
        shutil.rmtree(f"{examples.uri}/Split-test")
    model = artifact_of(standard_artifacts.Model, root / "model")
    model.id = 7
    reference = artifact_of(simple_artifacts.File, root / "reference")
    read = manifest.read(pairs_version)
    train = [str(path) for path in layout.shard_paths(pairs_version, "train")]
    figures = summarize(read, read_columns(read, train, 8))
    kept = DataReference(summary=figures, statistics=b"", schema="")
    (root / "reference").mkdir()
    for name, content in kept.files().items():
        (root / "reference" / name).write_bytes(content)
    return {
        "model": model,
        "pairs": pairs,
        "pairs_manifest": pairs_manifest,
        "reference": reference,
        "labels": labels,
        "labels_manifest": labels_manifest,
    }


def probe(inputs, root, config):
    """(blessing, report) of a run of the component."""
    outputs = {
        "blessing": artifact_of(standard_artifacts.ModelBlessing, root / "blessing"),
        "report": artifact_of(simple_artifacts.File, root / "report"),
    }
    encoder_probe.EncoderProbe.test_call(
        **inputs,
        **outputs,
        serving_dir=str(root / "serving"),
        config=settings.canonical_json(config),
        num_kept=4,
        run="test",
        since="",
        code="x",
    )
    return outputs["blessing"], outputs["report"]


def push(model, model_blessing, root):
    """PushedModel of TFX's own executor."""
    pushed = artifact_of(standard_artifacts.PushedModel, root / "pushed")
    destination = PushDestination(
        filesystem=PushDestination.Filesystem(base_directory=str(root / "serving/encoder"))
    )
    pusher.Executor(pusher.Executor.Context(tmp_dir=str(root / "tmp"), unique_id="1")).Do(
        {"model": [model], "model_blessing": [model_blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    return pushed


def resolve(model, model_blessing):
    """Return the latest blessed model according to TFX's own resolver."""
    strategy = LatestBlessedModelStrategy()
    return strategy.resolve_artifacts(None, {"model": [model], "model_blessing": [model_blessing]})[
        "model"
    ]


@pytest.mark.e2e
def test_a_refused_encoder_is_not_pushed_and_stops_at_the_gate(inputs, tmp_path):
    model_blessing, report = probe(inputs, tmp_path, ASKS_TOO_MUCH)
    assert model_blessing.get_int_custom_property("blessed") == 0
    assert (tmp_path / "blessing" / "NOT_BLESSED").exists()
    assert resolve(inputs["model"], model_blessing) == []
    assert push(inputs["model"], model_blessing, tmp_path).get_int_custom_property("pushed") == 0
    assert find_published(str(tmp_path / "serving"), "encoder") is None
    with pytest.raises(DataError) as caught:
        encoder_probe.EncoderGate.test_call(report=report)
    message = str(caught.value)
    assert message.startswith("the encoder is refused: ")
    assert "recall@1 s1 to s2 among 8 patches is 0." in message
    assert "below the required 1.000" in message
    assert str(tmp_path / "report/encoder_probe.json") in message
    assert "\n" not in message


@pytest.mark.e2e
def test_a_blessed_encoder_is_pushed_passes_the_gate_and_is_what_the_next_is_compared_with(
    inputs, tmp_path
):
    model_blessing, report = probe(inputs, tmp_path / "first", ASKS_NOTHING)
    assert model_blessing.get_int_custom_property("blessed") == 1
    assert model_blessing.get_string_custom_property("current_model") == inputs["model"].uri
    assert resolve(inputs["model"], model_blessing) == [inputs["model"]]
    encoder_probe.EncoderGate.test_call(report=report)
    # What the Pusher keeps with the encoder: its data, and how it sees the eval pairs.
    for name, content in blessing.read_approval(model_blessing.uri).files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    kept = read_reference(tmp_path / FOLDER)
    assert kept.summary == read_reference(inputs["reference"].uri).summary
    assert {sensor: rows.shape for sensor, rows in kept.embeddings.embeddings.items()} == {
        "s1": (4, 8),
        "s2": (4, 8),
    }
    found = blessing.read_report(report.uri)
    assert (found.labels, found.num_train_patches, found.last_encoder) == ("flood", 24, "")
    assert (
        push(inputs["model"], model_blessing, tmp_path / "second").get_int_custom_property("pushed")
        == 1
    )
    published = find_published(str(tmp_path / "second/serving"), "encoder")
    _, report = probe(inputs, tmp_path / "second", ASKS_NOTHING)
    again = blessing.read_report(report.uri)
    assert again.last_encoder == str(published)
    assert again.is_blessed
    assert [check.value for check in again.checks if check.name.endswith("_over_last")] == [0.0] * 4


@pytest.mark.e2e
def test_an_untrained_control_is_never_pushed_but_passes_the_gate(inputs, tmp_path):
    shutil.copytree(inputs["model"].uri, tmp_path / "model")
    card_path = tmp_path / "model/Format-Serving/assets.extra/model_card.json"
    card = json.loads(card_path.read_text())
    card["config"]["objective"] = "none"
    card_path.write_text(json.dumps(card))
    model = artifact_of(standard_artifacts.Model, tmp_path / "model")
    model_blessing, report = probe(inputs | {"model": model}, tmp_path, ASKS_NOTHING)
    assert push(model, model_blessing, tmp_path).get_int_custom_property("pushed") == 0
    assert find_published(str(tmp_path / "serving"), "encoder") is None
    found = blessing.read_report(report.uri)
    assert all(check.passed for check in found.checks)
    assert (found.is_blessed, found.refusals) == (False, ())
    assert found.notes[0].endswith("as a control: never published")
    # Tasks train on it, to be compared with.
    encoder_probe.EncoderGate.test_call(report=report)


@pytest.mark.e2e
def test_without_a_task_the_component_runs_without_labels(inputs, tmp_path):
    unlabelled = {name: value for name, value in inputs.items() if not name.startswith("labels")}
    _, report = probe(unlabelled, tmp_path, ASKS_NOTHING)
    assert blessing.read_report(report.uri).labels == ""


def test_the_newest_whole_version_counts_as_published(tmp_path):
    assert find_published(str(tmp_path), "encoder") is None
    for version in ("9", "10", "11", "draft"):
        (tmp_path / "encoder" / version / "assets.extra").mkdir(parents=True)
    for version in ("9", "10", "draft"):
        (tmp_path / "encoder" / version / "assets.extra" / "model_card.json").touch()
    assert find_published(f"{tmp_path}/", "encoder") == tmp_path / "encoder" / "10"
